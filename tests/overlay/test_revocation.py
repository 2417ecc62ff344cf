"""Who may say that a member is out, and what follows for whom."""

import dataclasses
import itertools

import pytest

from overlay.certificates import certify, read_chain
from overlay.keys import public_bytes
from overlay.notary import say_again, seal
from overlay.records import SIGNATURE_BYTES
from overlay.revocation import MAX_REASON, MAX_SAID, Revocation, Revocations, is_authorised


@pytest.fixture(scope="module")
def people(network):
    """Members by what they are."""
    issuer = network.person("issuer", "issuer")
    return {
        "founder": network.person("founder", "founder"),
        "issuer": issuer,
        "other issuer": network.person("other", "issuer"),
        "member": network.person("member"),
        "other member": network.person("another"),
        "theirs": network.person("theirs", issuer=issuer),
    }


@pytest.fixture
def may(network, people):
    """may(revocation): whether it is authorised."""

    def may(revocation, *, network_id=network.id):
        return is_authorised(
            revocation,
            authority=network.authority,
            authority_key=public_bytes(network.key),
            network=network_id,
        )

    return may


def by_issuer(people, about):
    return people["issuer"].notary.revocation(people[about].id, "why", people[about].chain)


@pytest.mark.parametrize("about", ["founder", "issuer", "member", "theirs"])
def test_the_authority_revokes_anybody(network, people, may, about):
    assert may(network.revocation(people[about].id))


@pytest.mark.parametrize(
    ("author", "about", "allowed"),
    [
        ("issuer", "member", True),
        ("issuer", "theirs", True),
        ("other issuer", "theirs", True),
        ("issuer", "other issuer", False),
        ("issuer", "founder", False),
        ("founder", "member", True),
        ("founder", "issuer", False),  # the authority's key does
        ("member", "other member", False),
        ("member", "issuer", False),
        ("theirs", "member", False),
        ("theirs", "issuer", False),
    ],
)
def test_issuers_revoke_plain_members_and_members_nobody(people, may, author, about, allowed):
    revocation = people[author].notary.revocation(people[about].id, "why", people[about].chain)
    assert may(revocation) is allowed


def test_an_issuer_shows_that_its_subject_is_a_plain_member(people, may):
    whole = by_issuer(people, "member")
    for subject in ((), people["other member"].chain, people["other issuer"].chain, (b"x",)):
        assert not may(dataclasses.replace(whole, subject=subject))
    invented = people["issuer"].notary.revocation("a" * 52, "", people["member"].chain)
    assert not may(invented)


@pytest.mark.parametrize("author", ["founder", "issuer", "member", "theirs"])
def test_everybody_revokes_itself(people, may, author):
    assert may(people[author].notary.revocation(people[author].id, "the key was lost"))


@pytest.mark.parametrize(
    "changes", [{"at": 5}, {"reason": "another"}, {"signature": bytes(SIGNATURE_BYTES)}]
)
def test_a_changed_revocation_is_nobodys(network, people, may, changes):
    for revocation in (
        network.revocation(people["member"].id, "why"),
        by_issuer(people, "member"),
    ):
        assert not may(dataclasses.replace(revocation, **changes))
        other = dataclasses.replace(revocation, peer_id=people["other member"].id)
        assert not may(other)


def test_a_revocation_is_the_authors_whose_chain_it_shows(people, may):
    by_member = people["member"].notary.revocation(
        people["other member"].id, "", people["other member"].chain
    )
    for chain in (people["issuer"].chain, people["other member"].chain, ()):
        assert not may(dataclasses.replace(by_member, chain=chain))


def test_a_revocation_of_another_network_is_nobodys(signed, network, people, may):
    other = signed.SignedNetwork("other")
    subject = people["member"].id
    assert not may(other.revocation(subject))
    assert not may(
        other.person("issuer", "issuer").notary.revocation(subject, "", people["member"].chain)
    )
    revocation = network.revocation(subject)
    assert not may(seal(revocation, network.key, other.id, chain=()))
    assert may(seal(revocation, network.key, network.id, chain=()))


def test_a_revocation_stays_when_its_authors_certificate_has_expired(people, may):
    revocation = by_issuer(people, "member")
    assert may(revocation)


def test_an_expired_issuer_revokes_nobody(people, may, network):
    late = read_chain(people["issuer"].chain).expires_at + 10.0
    unsigned = Revocation(
        people["member"].id, int(late), "", people["issuer"].chain, bytes(SIGNATURE_BYTES)
    )
    revocation = seal(unsigned, people["issuer"].key, network.id, chain=people["issuer"].chain)
    assert not may(revocation)


@pytest.mark.parametrize(
    "changes",
    [
        {"peer_id": "short"},
        {"at": -1},
        {"at": 2**53},
        {"chain": (b"x",) * 3},
        {"reason": "x" * (MAX_REASON + 1)},
        {"reason": "two\nlines"},
        {"signature": b""},
        {"signature": b"x" * 63},
    ],
)
def test_a_revocation_outside_its_limits_cannot_be_built(network, id_of, changes):
    with pytest.raises(ValueError):
        dataclasses.replace(network.revocation(id_of(1)), **changes)


# Those known here.


def test_the_first_revocation_of_a_member_is_kept(network, id_of):
    known = Revocations()
    first = network.revocation(id_of(1), "first")
    assert known.add(first)
    assert not known.add(network.revocation(id_of(1), "second"))
    assert known.add(network.revocation(id_of(2)))
    assert (id_of(1) in known, id_of(3) in known, len(known)) == (True, False, 2)
    assert [*known.by_peer] == [id_of(1), id_of(2)]
    assert known.by_peer[id_of(1)] == first
    assert [*Revocations(known.by_peer.values()).by_peer] == [*known.by_peer]


@pytest.mark.parametrize("own", [False, True])
def test_what_a_revoked_issuer_says_of_others_is_void_whenever_it_comes(network, people, own):
    issuer, member = people["issuer"], people["member"].id
    out = issuer.notary.revocation(issuer.id, "") if own else network.revocation(issuer.id)
    said = by_issuer(people, "member")
    early, late = Revocations([said, out]), Revocations([out])
    assert early.said_by(issuer.id) == [said]
    assert late.said_by(issuer.id) == []
    assert not late.is_news(said)
    assert not late.add(said)
    assert member not in late
    assert issuer.id in late  # its own end is no word about others


def test_the_weightiest_word_is_kept(network, people):
    member = people["member"]
    weak, strong = by_issuer(people, "member"), network.revocation(member.id)
    own = member.notary.revocation(member.id, "a new key")
    other = people["other issuer"].notary.revocation(member.id, "", member.chain)
    order = [weak, own, strong]
    assert [one.weight for one in order] == [0, 1, 2]
    for lighter, better in itertools.combinations(order, 2):
        known = Revocations([lighter])
        assert known.add(better)
        assert known.by_peer == {member.id: better}
        assert not known.add(lighter)
        assert not known.add(other)
    assert known.said_by(people["issuer"].id) == []
    assert not Revocations([weak]).add(other)


def test_who_gives_up_its_id_can_be_put_out_all_the_same(network, people):
    """With the strangers that it certified: giving up one's own key first saves none of them."""
    issuer, stranger = people["issuer"], read_chain(people["theirs"].chain)
    out = network.revocation(issuer.id)
    known = Revocations([issuer.notary.revocation(issuer.id, "mine")])
    assert known.against(stranger, known=False) is None
    assert known.add(out)
    assert known.against(stranger, known=False) == out


def test_news_may_follow_from_other_news(network, people):
    issuer, weak = people["issuer"], by_issuer(people, "member")
    other = people["other issuer"].notary.revocation(
        people["member"].id, "", people["member"].chain
    )
    known = Revocations([weak])
    assert not known.is_news(other)
    assert known.is_news(other, besides={issuer.id})
    assert not Revocations().is_news(weak, besides={issuer.id})


def test_said_again_it_is_the_authoritys_word(network, people, may):
    (again,) = say_again([by_issuer(people, "member")], network.key, network.id)
    assert may(again)
    assert (again.author, again.peer_id) == ("", people["member"].id)
    assert again.reason == "why"


def test_one_author_fills_no_more_than_its_share_and_the_authority_always_finds_room(
    network, people, id_of
):
    one = by_issuer(people, "member")
    ids = (id_of(f"revoked {number}") for number in range(MAX_SAID + 1))
    known = Revocations(dataclasses.replace(one, peer_id=peer) for peer in ids)
    assert len(known) == MAX_SAID
    assert not known.add(one)
    own = people["member"].notary.revocation(people["member"].id, "")
    assert known.add(own)
    assert known.add(network.revocation(people["issuer"].id))


def test_all_but_the_authoritys_are_bounded_together(network, people, id_of, monkeypatch):
    monkeypatch.setattr("overlay.revocation.MAX_REVOCATIONS", 3)
    one = by_issuer(people, "member")
    known = Revocations(dataclasses.replace(one, peer_id=id_of(n)) for n in range(5))
    assert len(known) == 3
    assert known.add(network.revocation(id_of(7)))


def test_an_issuer_that_gave_up_its_own_key_took_nobody_with_it(people):
    known = Revocations([people["issuer"].notary.revocation(people["issuer"].id, "a new key")])
    theirs = read_chain(people["theirs"].chain)
    assert known.against(theirs, known=False) is None


def test_an_issuer_that_certified_anothers_key_as_a_members_revokes_no_founder(people):
    founder, issuer = people["founder"], people["issuer"]
    fake = certify(
        founder.key.public_key(),
        "member",
        issuer_key=issuer.key,
        issuer=issuer.chain,
        authority=issuer.notary._authority,
    )
    known = Revocations([issuer.notary.revocation(founder.id, "", fake)])
    assert not known.counts(read_chain(founder.chain))
    assert known.against(read_chain(founder.chain), known=True) is None
    assert known.counts(read_chain(fake))


def test_with_an_issuer_go_the_strangers_whom_it_certified(network, people):
    known = Revocations()
    theirs, issuer = (read_chain(people[name].chain) for name in ("theirs", "issuer"))
    assert known.against(theirs, known=False) is None
    revocation = network.revocation(people["issuer"].id)
    known.add(revocation)
    assert known.against(theirs, known=False) == revocation
    assert known.against(theirs, known=True) is None
    assert known.against(issuer, known=True) == revocation
    assert known.against(issuer, known=False) == revocation
    assert known.against(read_chain(people["member"].chain), known=False) is None


def test_ones_own_revocation_comes_before_the_issuers(network, people):
    own = network.revocation(people["theirs"].id)
    known = Revocations([network.revocation(people["issuer"].id), own])
    theirs = read_chain(people["theirs"].chain)
    assert known.against(theirs, known=False) == known.against(theirs, known=True) == own
