import pytest

from overlay.anti_entropy import AntiEntropy
from overlay.digests import BUCKETS, part_of
from overlay.knowledge import Knowledge
from overlay.membership import Membership
from overlay.neighbourhood import Neighbourhood
from overlay.profile import PROFILES
from overlay.records import Fate, State, Vote
from overlay.wire import SyncPage, SyncRequest

LAN = PROFILES["lan"]
NOW = 100.0
NEWCOMER = SyncRequest((0,) * BUCKETS)


class Side:
    """One of two peers whose tables are compared."""

    def __init__(self, me, *others):
        self.table = Membership(me)
        self.known = Knowledge(self.table, Neighbourhood("n" * 52, self.table), LAN)
        self.repair = AntiEntropy(self.known, LAN)
        for record in others:
            self.known.learn(record, "", NOW)
        self.forget_what_was_told()

    def forget_what_was_told(self):
        self.known.outbox.flush([], NOW)
        self.known.reports.clear()

    def reported(self):
        return [report.kind for report in self.known.reports]

    def is_telling(self):
        return self.known.outbox.flush(["a third"], NOW) != []

    def answer(self, request):
        """(records, fates) that are sent."""
        pages = self.repair.answer(request)
        return [r for p in pages for r in p.records], [f for p in pages for f in p.fates]


@pytest.fixture
def side(member):
    """side(me, *others): a peer that holds these members by number."""
    return lambda me, *others: Side(member(me), *map(member, others))


@pytest.fixture
def death(id_of):
    """death(number): one that can be told on."""
    return lambda number: Fate(id_of(number), 1, State.DEAD, (Vote(id_of(0), 1, True, b""),))


def test_one_request_a_trip_with_the_digests_of_every_part(side):
    asking = side(1, 2, 3)
    assert asking.repair.ask(NOW) == SyncRequest(asking.table.digests)
    assert asking.repair.ask(NOW + 0.9 * LAN.trip_s) is None
    assert asking.repair.ask(NOW + 1.1 * LAN.trip_s) == SyncRequest(asking.table.digests)


def test_an_exchange_in_both_directions_makes_two_tables_equal(side):
    one, other = side(0, *range(2, 120)), side(1, *range(60, 200))
    for asking, asked in ((one, other), (other, one)):
        request = asking.repair.ask(NOW)
        for page in asked.repair.answer(request):
            asking.repair.learn(page, "link", NOW)
    assert one.table.digests == other.table.digests
    assert other.repair.answer(SyncRequest(one.table.digests)) == []


def test_only_the_parts_that_differ_are_sent(side, member):
    asked = side(0, *range(2, 200))
    digests = list(asked.table.digests)
    part = part_of(member(7).peer_id)
    digests[part] ^= 1
    records, fates = asked.answer(SyncRequest(tuple(digests)))
    assert {part_of(record.peer_id) for record in records} == {part}
    assert member(7) in records
    assert fates == []


def test_only_newcomers_are_sent_the_records_of_the_dead(side, member, death):
    asked = side(0, *range(2, 200))
    asked.known.judge([death(7)], "", NOW)
    records, fates = asked.answer(NEWCOMER)
    assert member(7) in records
    assert fates == [death(7)]
    digests = list(asked.table.digests)
    digests[part_of(member(7).peer_id)] ^= 1
    records, fates = asked.answer(SyncRequest(tuple(digests)))
    assert member(7) not in records
    assert fates == [death(7)]


def test_a_goodbye_without_its_word_is_told_to_nobody(side, member, id_of):
    asked = side(0, 2, 3)
    asked.known.judge([Fate(id_of(2), 1, State.LEFT)], "", NOW)
    records, fates = asked.answer(NEWCOMER)
    assert {record.peer_id for record in records} == {id_of(0), id_of(3)}
    assert fates == []


def test_a_stranger_that_is_gone_is_remembered_and_no_news(side, member, death):
    asking = side(0, 1)
    asking.repair.learn(SyncPage((member(7),), (death(7),)), "link", NOW)
    assert asking.table.state(member(7).peer_id) is State.DEAD
    assert asking.reported() == []
    assert not asking.is_telling()


def test_a_stranger_that_rose_above_its_death_is_news(side, member, death):
    asking = side(0, 1)
    asking.repair.learn(SyncPage((member(7, incarnation=2),), (death(7),)), "link", NOW)
    assert asking.table.state(member(7).peer_id) is State.ALIVE
    assert asking.reported() == ["member.joined"]
    assert asking.is_telling()


def test_the_fate_of_a_member_that_lives_here_is_not_taken_over(side, member, death):
    asking = side(0, 1, 7)
    asking.repair.learn(SyncPage((member(7),), (death(7),)), "link", NOW)
    assert asking.table.state(member(7).peer_id) is State.ALIVE
