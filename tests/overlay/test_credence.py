"""What of a message is believed: attacks by a member that has a link and says what it likes."""

import dataclasses

import pytest

from overlay.credence import believed
from overlay.digests import BUCKETS
from overlay.membership import Membership
from overlay.notary import Forged, Signing
from overlay.records import Fate, State, Vote
from overlay.wire import Heartbeat, News, Revoked, SyncPage, SyncRequest


@pytest.fixture
def people(network):
    return [network.person(number) for number in range(6)]


@pytest.fixture
def table(people):
    """The table of the first, who knows all but the last."""
    table = Membership(people[0].record, notary=people[0].notary)
    for person in people[1:5]:
        table.merge(person.record, 0.0)
    return table


@pytest.fixture
def hear(people, table):
    """hear(message): what the first believes of it."""
    return lambda message: believed(message, people[0].notary, table)


@pytest.fixture(params=[News, SyncPage])
def paged(request):
    """paged(records, fates): as news, and as a page of a table."""
    if request.param is SyncPage:
        return lambda records=(), fates=(): SyncPage(tuple(records), tuple(fates))
    return lambda records=(), fates=(): News(tuple(records), tuple(fates), ())


class Suspicious:
    """A notary that may not be asked."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was checked for nothing")


def seen(*evidence):
    return News((), (), evidence)


# Records.


def test_what_its_author_signed_is_believed(people, hear, paged):
    stranger = people[5]
    newer = people[2].says(incarnation=2, name="renamed")
    message = paged([stranger.record, newer])
    assert hear(message) == message


def test_a_forged_record_costs_the_link(people, hear, paged):
    for forged in (
        dataclasses.replace(people[2].record, incarnation=2),
        dataclasses.replace(people[5].record, name="other"),
        dataclasses.replace(people[5].record, chain=people[4].chain),
        dataclasses.replace(people[5].record, chain=(), signature=b""),
        people[4].notary.record(dataclasses.replace(people[5].record)),
        people[4].notary.record(dataclasses.replace(people[2].record, incarnation=9)),
    ):
        with pytest.raises(Forged):
            hear(paged([forged]))


def test_a_record_of_another_network_costs_the_link(signed, hear, paged):
    with pytest.raises(Forged):
        hear(paged([signed.SignedNetwork("other").person(5).record]))


def test_a_word_in_my_own_name_is_checked_too(people, hear, paged):
    with pytest.raises(Forged):
        hear(paged([dataclasses.replace(people[0].record, incarnation=7)]))
    earlier_life = people[0].says(incarnation=7)
    assert hear(paged([earlier_life])).records == (earlier_life,)


def test_an_older_record_that_is_played_again_is_no_news(people, table, hear, paged):
    table.merge(people[2].says(incarnation=3), 0.0)
    assert hear(paged([people[2].says(incarnation=2), people[2].record])) == paged()


def test_the_record_of_one_whose_certificate_ended_is_left_out(network, people, table, paged):
    late = Signing(people[0].key, people[0].chain, network.authority, clock=lambda: 1e11)
    assert believed(paged([people[5].record]), late, table) == paged()


def test_nothing_that_the_revoked_say_is_heard(network, people, table, hear, paged):
    table.revoke(network.revocation(people[2].id), 0.0)
    table.revoke(network.revocation(people[5].id), 0.0)
    assert hear(paged([people[2].says(incarnation=9), people[5].record])) == paged()


# Fates.


def test_a_verdict_keeps_the_votes_of_those_who_are_known(people, hear, paged):
    subject = people[1].id
    votes = tuple(person.vote(subject) for person in people[2:6])
    (fate,) = hear(paged(fates=[Fate(subject, 1, State.DEAD, votes)])).fates
    assert fate.votes == votes[:3]  # the last is a stranger


def test_a_voter_may_be_introduced_in_the_same_message(people, hear, paged):
    subject = people[1].id
    votes = (people[5].vote(subject),)
    message = paged([people[5].record], [Fate(subject, 1, State.DEAD, votes)])
    assert hear(message).fates[0].votes == votes


def test_a_voter_that_is_introduced_by_a_forged_record_costs_the_link(people, hear, paged):
    forged = dataclasses.replace(people[5].record, name="forged")
    fate = Fate(people[1].id, 1, State.DEAD, (people[5].vote(people[1].id),))
    with pytest.raises(Forged):
        hear(paged([forged], [fate]))


@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD])
def test_a_vote_in_anothers_name_costs_the_link(people, hear, paged, state):
    subject, liar, victim = people[1].id, people[2], people[3]
    for vote in (
        Vote(victim.id, 1, False, liar.vote(subject).signature),
        Vote(victim.id, 1, True, victim.vote(subject, hard=False).signature),  # made harder
        Vote(victim.id, 2, False, victim.vote(subject, incarnation=1).signature),  # made newer
        Vote(victim.id, 1, False, victim.vote(people[4].id).signature),  # about another
        Vote(victim.id, 1, False, b""),
    ):
        with pytest.raises(Forged):
            hear(paged(fates=[Fate(subject, 1, state, (vote,))]))


def test_a_goodbye_counts_only_from_who_says_it(people, hear, paged):
    goodbye = people[1].goodbye()
    assert hear(paged(fates=[goodbye])) == paged(fates=[goodbye])
    for votes in (
        (),
        people[2].notary.goodbye(1),
        (people[2].vote(people[1].id),),
        people[1].notary.goodbye(2),
        (Vote(people[1].id, 1, True, b""),),
    ):
        with pytest.raises(Forged):
            hear(paged(fates=[Fate(people[1].id, 1, State.LEFT, votes)]))


def test_an_old_goodbye_does_not_serve_in_a_later_life(people, hear, paged):
    with pytest.raises(Forged):
        hear(paged(fates=[Fate(people[1].id, 3, State.LEFT, people[1].goodbye().votes)]))


def test_a_strangers_goodbye_is_left_out_unless_it_is_introduced(people, hear, paged):
    assert hear(paged(fates=[people[5].goodbye()])) == paged()
    message = paged([people[5].record], [people[5].goodbye()])
    assert hear(message) == message


def test_nobody_is_revoked_by_a_fate(people, hear, paged):
    for subject in (people[0], people[1], people[5]):
        with pytest.raises(Forged):
            hear(paged(fates=[Fate(subject.id, 1, State.REVOKED)]))


def test_my_own_goodbye_cannot_be_said_by_others(people, hear, paged):
    with pytest.raises(Forged):
        hear(paged(fates=[Fate(people[0].id, 1, State.LEFT, people[2].notary.goodbye(1))]))


# Testimonies.


def test_a_testimony_is_believed_of_its_author(people, hear):
    pieces = (people[2].testimony(people[1].id), people[3].testimony(people[1].id, hard=True))
    assert hear(seen(*pieces)) == seen(*pieces)


def test_a_strangers_testimony_is_left_out(people, hear):
    piece = people[2].testimony(people[1].id)
    assert hear(seen(people[5].testimony(people[1].id), piece)) == seen(piece)


def test_a_testimony_in_anothers_name_costs_the_link(people, hear):
    piece = people[2].testimony(people[1].id)
    for changes in (
        {"observer": people[3].id}, {"hard": True}, {"incarnation": 2},
        {"subject": people[4].id}, {"signature": b""},
    ):  # fmt: skip
        with pytest.raises(Forged):
            hear(seen(type(piece)(**{**piece._asdict(), **changes})))


# Revocations.


def test_a_revocation_counts_from_whoever_may_revoke(network, people, hear):
    issuer = network.person("issuer", "issuer")
    allowed = (network.revocation(people[1].id), people[2].notary.revocation(people[2].id, "lost"))
    by_issuer = issuer.notary.revocation(people[3].id, "why", people[3].chain)
    assert hear(Revoked((*allowed, by_issuer))) == Revoked((*allowed, by_issuer))


def test_a_revoked_issuer_revokes_nobody_but_itself(network, people, hear, table):
    issuer = network.person("issuer", "issuer")
    table.revoke(network.revocation(issuer.id), 0.0)
    late = issuer.notary.revocation(people[3].id, "why", people[3].chain)
    assert hear(Revoked((late,))) == Revoked(())


def test_a_revocation_by_nobody_who_may_costs_the_link(signed, network, people, hear):
    subject = people[1].id
    right = network.revocation(subject)
    for wrong in (
        people[2].notary.revocation(subject, ""),
        signed.SignedNetwork("other").revocation(subject),
        dataclasses.replace(right, peer_id=people[3].id),
        dataclasses.replace(right, signature=bytes(64)),
    ):
        with pytest.raises(Forged):
            hear(Revoked((wrong,)))


def test_of_two_words_in_one_message_the_weightier_is_kept(network, people, hear):
    member = people[3]
    light = network.person("issuer", "issuer").notary.revocation(member.id, "", member.chain)
    strong = network.revocation(member.id)
    for order in ((light, strong), (strong, light)):
        assert hear(Revoked(order)).revocations[-1] == strong


def test_junk_in_the_place_of_certificates_costs_the_link(network, people, table, hear):
    """Also about somebody who is out, whose word is looked at before it is checked."""
    out = people[2]
    table.revoke(network.revocation(out.id), 0.0)
    junk = dataclasses.replace(out.says(incarnation=9), chain=(b"junk",))
    with pytest.raises(Forged):
        hear(News((junk,), (), ()))
    with pytest.raises(Forged):
        hear(Revoked((dataclasses.replace(network.revocation(people[3].id), chain=(b"junk",)),)))


def test_a_revocation_that_is_known_is_no_news(network, people, table):
    table.revoke(network.revocation(people[1].id), 0.0)
    again = Revoked((network.revocation(people[1].id, "again"),))
    assert believed(again, Suspicious(), table) == Revoked(())


# What costs nothing.


def test_what_is_no_news_is_not_checked(people, table):
    subject = people[1].id
    death = Fate(subject, 1, State.DEAD, (people[2].vote(subject), people[3].vote(subject)))
    table.judge(death, 0.0)
    table.judge(people[4].goodbye(), 0.0)
    known = [person.record for person in people[:5]]
    forged = Fate(subject, 1, State.DEAD, (Vote(people[2].id, 1, True, bytes(64)),))
    message = SyncPage(tuple(known), (death, forged, people[4].goodbye()))
    assert believed(message, Suspicious(), table).records == ()


def test_other_messages_are_as_they_are(hear):
    for message in (Heartbeat(7), SyncRequest((1,) * BUCKETS)):
        assert hear(message) is message
