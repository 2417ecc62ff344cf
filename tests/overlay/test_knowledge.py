import pytest

from overlay.knowledge import Knowledge
from overlay.membership import FORGET_S, Change, Membership
from overlay.neighbourhood import Neighbourhood
from overlay.profile import PROFILES
from overlay.records import Fate, Member, State
from overlay.revocation import Revocation
from overlay.wire import Revoked

NETWORK = "n" * 52


@pytest.fixture
def known(member):
    """What peer 0 knows, before it heard of anybody."""
    table = Membership(member(0))
    return Knowledge(table, Neighbourhood(NETWORK, table), PROFILES["lan"])


@pytest.fixture
def changes(known):
    """The changes that a listener was told of."""
    told = []
    known.listen(lambda changes, now: told.extend(changes))
    return told


@pytest.fixture
def fate(id_of):
    return lambda number, state=State.DEAD, incarnation=1: Fate(id_of(number), incarnation, state)


def told(known, *links):
    """What waits for each link: (records, fates)."""
    result = {link: ((), ()) for link in links}
    for link, news in known.outbox.flush(links, 0.0):
        records, fates = result[link]
        result[link] = (records + news.records, fates + news.fates)
    return result


def reported(known):
    kinds = [(report.kind, report.data.get("name")) for report in known.reports]
    known.reports.clear()
    return kinds


def test_a_newcomer_moves_everything(known, changes, member):
    known.learn(member(1), "a", 0.0)
    assert known.table.get(member(1).peer_id) == member(1)
    assert known.graph.wanted == {member(1).peer_id}
    assert told(known, "a", "b") == {"a": ((), ()), "b": ((member(1),), ())}
    assert changes == [Change(member(1), State.ALIVE, None)]
    assert reported(known) == [("member.joined", "peer1")]


def test_what_is_no_news_moves_nothing(known, changes, member, fate):
    known.learn(member(1), "a", 0.0)
    known.judge([fate(1)], "a", 0.0)
    told(known, "b")
    reported(known)
    changes.clear()
    known.learn(member(1), "b", 0.0)
    known.judge([fate(1), fate(1, State.SUSPECT), fate(2)], "b", 0.0)
    assert told(known, "a") == {"a": ((), ())}
    assert (changes, reported(known)) == ([], [])


@pytest.mark.parametrize(
    ("state", "kind", "wanted"),
    [
        (State.SUSPECT, "member.suspect", True),
        (State.DEAD, "member.dead", False),
        (State.LEFT, "member.left", False),
    ],
)
def test_a_fate_moves_everything(known, changes, member, fate, state, kind, wanted):
    known.learn(member(1), "a", 0.0)
    told(known, "b")
    reported(known)
    changes.clear()
    known.judge([fate(1, state)], "b", 0.0)
    assert known.table.state(member(1).peer_id) is state
    assert (member(1).peer_id in known.graph.wanted) is wanted
    assert told(known, "a", "b") == {"a": ((), (fate(1, state),)), "b": ((), ())}
    assert changes == [Change(member(1), state, State.ALIVE)]
    assert reported(known) == [(kind, "peer1")]


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        (State.SUSPECT, "member.refuted"),
        (State.DEAD, "member.returned"),
        (State.LEFT, "member.returned"),
    ],
)
def test_a_higher_word_of_the_member_itself_is_a_refutation_or_a_return(
    known, member, fate, before, kind
):
    known.learn(member(1), "", 0.0)
    known.judge([fate(1, before)], "", 0.0)
    reported(known)
    known.learn(member(1, incarnation=2), "a", 0.0)
    assert known.table.state(member(1).peer_id) is State.ALIVE
    assert member(1).peer_id in known.graph.wanted
    assert reported(known) == [(kind, "peer1")]
    assert told(known, "b") == {"b": ((member(1, incarnation=2),), ())}


def test_a_new_description_is_told_and_not_reported(known, member):
    known.learn(member(1), "", 0.0)
    reported(known)
    known.learn(member(1, incarnation=2, name="renamed"), "a", 0.0)
    assert reported(known) == []
    assert told(known, "b") == {"b": ((member(1, incarnation=2, name="renamed"),), ())}


def test_a_page_of_fates_is_one_change_of_the_graph_and_a_report_each(known, member, fate):
    batches = []
    known.listen(lambda changes, now: batches.append(len(changes)))
    for number in (1, 2, 3):
        known.learn(member(number), "", 0.0)
    reported(known)
    told(known)
    batches.clear()
    page = [fate(1), fate(2, State.LEFT), fate(3, State.SUSPECT)]
    known.judge([*page, fate(7)], "a", 0.0)
    assert batches == [3]
    assert known.graph.wanted == {member(3).peer_id}
    assert told(known, "b") == {"b": ((), tuple(page))}
    assert [kind for kind, _ in reported(known)] == ["member.dead", "member.left", "member.suspect"]


# Oneself.


def test_a_grave_word_about_me_is_answered_to_everybody_and_never_believed(
    known, changes, member, fate
):
    assert not known.take_doubted()
    known.judge([fate(0, State.DEAD, 4)], "a", 0.0)
    assert known.table.me == member(0, incarnation=5)
    assert told(known, "a", "b") == {
        "a": ((member(0, incarnation=5),), ()),
        "b": ((member(0, incarnation=5),), ()),
    }
    assert changes == [Change(member(0, incarnation=5), State.ALIVE, State.ALIVE)]
    assert reported(known) == []
    assert (known.take_doubted(), known.take_doubted()) == (True, False)


def test_what_befell_others_on_a_page_about_me_counts_as_well(known, member, fate):
    known.learn(member(1), "", 0.0)
    told(known)
    known.judge([fate(1), fate(0, State.SUSPECT)], "a", 0.0)
    assert known.table.state(member(1).peer_id) is State.DEAD
    assert told(known, "b") == {"b": ((member(0, incarnation=2),), (fate(1),))}


def test_two_grave_words_about_me_on_one_page_are_both_outlived(known, member, fate):
    """Nobody honest sends it; it is well-formed, and costs no more than an answer."""
    known.judge([fate(0, State.SUSPECT, 3), fate(0, State.DEAD, 8)], "a", 0.0)
    assert known.table.me == member(0, incarnation=9)
    assert told(known, "a") == {"a": ((member(0, incarnation=9),), ())}


def test_an_older_life_of_mine_is_no_doubt(known, member):
    known.learn(member(0, incarnation=4, name="before"), "a", 0.0)
    assert known.table.me == member(0, incarnation=5)
    assert not known.take_doubted()
    assert told(known, "a") == {"a": ((member(0, incarnation=5),), ())}


def test_describing_myself_is_told(known, changes, member):
    known.describe_me(0.0, part=3)
    assert told(known, "a") == {"a": ((member(0, incarnation=2, part=3),), ())}
    assert [change.record.part for change in changes] == [3]
    assert reported(known) == []


def test_leaving_is_told_and_reported(known, fate):
    known.leave(5.0)
    assert known.table.has_left
    assert told(known, "a") == {"a": ((), (fate(0, State.LEFT),))}
    assert reported(known) == [("member.left", "peer0")]


# Memory.


def test_an_earlier_lifes_table_is_taken_in_without_a_word(known, changes, member):
    rows = [
        Member(member(1), State.ALIVE),
        Member(member(2), State.SUSPECT),
        Member(member(3), State.DEAD),
        Member(member(4), State.LEFT),
    ]
    known.remember(rows, 7.0)
    ids = [row.record.peer_id for row in rows]
    states = [known.table.state(peer) for peer in ids]
    assert states == [State.ALIVE, State.ALIVE, State.DEAD, State.LEFT]
    assert known.graph.wanted == set(ids[:2])
    assert told(known, "a") == {"a": ((), ())}
    assert (changes, reported(known)) == ([], [])


def test_my_own_earlier_life_is_risen_above(known, member):
    known.remember([Member(member(0, incarnation=6, name="then"), State.ALIVE)], 0.0)
    assert known.table.me == member(0, incarnation=7)


def test_the_forgotten_leave_the_table_and_the_order(known, member, fate):
    known.learn(member(1), "", 0.0)
    known.judge([fate(1)], "", 0.0)
    known.forget(FORGET_S - 1)
    assert member(1).peer_id in known.table.known
    known.forget(FORGET_S + 1)
    assert member(1).peer_id not in known.table.known
    assert known.graph.rings.order(lambda peer: True) == [known.table.my_id]


def test_a_report_about_a_peer_has_its_name(known, member, id_of):
    known.learn(member(1), "", 0.0)
    known.reports.clear()
    known.report("link.down", member(1).peer_id, lost=True)
    known.report("dial.failed", "", address="ws://a:1")
    first, second = known.reports
    assert first.data == {"peer": member(1).peer_id, "name": "peer1", "lost": True}
    assert second.data == {"address": "ws://a:1"}


# The revoked.


@pytest.fixture
def revocation(id_of):
    """revocation(number): a fixed one."""
    return lambda number: Revocation(id_of(number), 1, "why", (), bytes(64))


def test_a_revoked_member_leaves_the_graph_and_everybody_else_is_told(
    known, changes, member, revocation
):
    known.learn(member(1), "a", 0.0)
    told(known, "b")
    changes.clear()
    reported(known)
    assert known.revoke(revocation(1), "a", 1.0)
    assert known.graph.wanted == frozenset()
    assert known.outbox.flush(["a", "b"], 1.0) == [("b", Revoked((revocation(1),)))]
    assert changes == [Change(member(1), State.REVOKED, State.ALIVE)]
    assert reported(known) == [("member.revoked", "peer1")]


def test_a_revocation_that_is_known_moves_nothing(known, changes, member, revocation):
    known.learn(member(1), "a", 0.0)
    once = revocation(1)
    known.revoke(once, "a", 1.0)
    known.outbox.flush([], 1.0)
    changes.clear()
    reported(known)
    for again in (once, revocation(1)):
        assert not known.revoke(again, "b", 2.0)
    assert known.outbox.flush(["a", "b", "c"], 2.0) == []
    assert (changes, reported(known)) == ([], [])


def test_a_strangers_revocation_is_passed_on(known, changes, revocation):
    assert known.revoke(revocation(5), "a", 1.0)
    assert known.outbox.flush(["b"], 1.0) == [("b", Revoked((revocation(5),)))]
    assert changes == []


def test_who_was_revoked_in_an_earlier_life_does_not_come_back_as_alive(known, member):
    known.remember([Member(member(1), State.REVOKED), Member(member(2), State.ALIVE)], 0.0)
    assert [record.name for record in known.table.live() if record != member(0)] == ["peer2"]
    assert known.table.get(member(1).peer_id) is None


def test_ones_own_revocation_is_reported(known, revocation):
    assert known.revoke(revocation(0), "a", 1.0)
    assert known.table.has_left
    assert [kind for kind, _ in reported(known)] == ["network.revoked"]


def test_a_revocation_too_many_is_not_passed_on_for_ever(known, revocation, monkeypatch):
    monkeypatch.setattr(known.table.revocations, "add", lambda revocation: False)
    assert not known.revoke(revocation(1), "a", 1.0)
    assert known.outbox.flush(["b"], 1.0) == []
