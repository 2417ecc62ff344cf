import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.dialling import LOOKS_AT_ONCE, Dialler
from overlay.effects import Dial
from overlay.membership import Membership
from overlay.profile import PROFILES
from overlay.records import Fate, State

LAN = PROFILES["lan"]
SEED = "ws://seed:1"


class Desk:
    """A dialler of the member in the middle, its table, and the ids around it."""

    def __init__(self, member, seed=0, now=0.0):
        five = sorted((member(n) for n in range(5)), key=lambda record: record.peer_id)
        self.low, self.lower, self.me, self.high, self.higher = five
        self.table = Membership(self.me)
        for record in five:
            self.table.merge(record, 0.0)
        self.dialler = Dialler(self.table, LAN, random.Random(seed), now)

    def befall(self, record, state):
        self.table.merge(record, 0.0)
        self.table.judge(Fate(record.peer_id, record.incarnation, state), 0.0)

    def due(self, *missing, alone=False, now):
        dials = self.dialler.due([m.peer_id for m in missing], alone=alone, now=now)
        assert self.dialler.wake_at() > now
        assert len({dial.target for dial in dials}) == len(dials)
        return [dial.target for dial in dials]


@pytest.fixture
def desk(member):
    return Desk(member)


def test_a_higher_neighbour_is_dialled_at_once_and_a_lower_one_after_a_courtesy(desk):
    assert desk.due(desk.high, desk.low, now=0.0) == [desk.high.peer_id]
    wait = desk.dialler.wake_at()
    assert 0.5 * LAN.courtesy_s <= wait <= 1.5 * LAN.courtesy_s
    assert desk.due(desk.high, desk.low, now=wait) == [desk.low.peer_id]


def test_a_dial_names_the_member_and_all_its_addresses(desk):
    (dial,) = desk.dialler.due([desk.high.peer_id], alone=False, now=0.0)
    assert dial == Dial(desk.high.peer_id, desk.high.addresses, LAN.dial_timeout_s)


def test_one_target_is_dialled_once_at_a_time(desk):
    desk.due(desk.high, now=0.0)
    assert desk.due(desk.high, now=0.1) == []
    assert desk.due(desk.high, now=0.9) == []


def test_failures_back_off_exponentially_within_the_jitter_up_to_a_limit(desk):
    now, waits = 0.0, []
    target = desk.high.peer_id
    for _ in range(9):
        assert target in desk.due(desk.high, now=now)
        desk.dialler.failed(target, now)
        attempt = desk.dialler._attempts[target]
        waits.append(attempt.at - now)
        assert desk.due(desk.high, now=attempt.at - 1e-3) == []
        now = attempt.at
    plain = [min(LAN.redial_first_s * 2**n, LAN.redial_last_s) for n in range(9)]
    assert all(0.5 * p <= w <= 1.5 * p for w, p in zip(waits, plain, strict=True))
    assert len({w / p for w, p in zip(waits, plain, strict=True)}) == 9


def test_a_link_ends_the_back_off(desk):
    target = desk.high.peer_id
    for now in (0.0, 10.0, 20.0):
        desk.due(desk.high, now=now)
        desk.dialler.failed(target, now)
    desk.dialler.linked(target, "")
    assert desk.due(desk.high, now=20.1) == [target]


def test_a_lost_link_is_dialled_at_once_whoever_is_lower(desk):
    desk.dialler.lost(desk.low.peer_id, 5.0)
    assert desk.due(desk.low, now=5.0) == [desk.low.peer_id]


def test_who_is_no_longer_wanted_is_forgotten(desk):
    desk.due(desk.low, now=0.0)
    desk.due(now=0.1)
    assert desk.dialler._attempts == {}


def test_a_member_without_addresses_is_never_dialled(desk, member):
    mute = member(99, addresses=())
    desk.table.merge(mute, 0.0)
    desk.dialler.lost(mute.peer_id, 0.0)
    for now in (0.0, 1.0, 20.0):
        assert desk.due(mute, now=now) == []
    desk.befall(mute, State.DEAD)
    assert desk.due(mute, now=60.0) == []


def test_seeds_are_dialled_while_alone_with_back_off(desk):
    desk.dialler.ask(SEED, 0.0)
    assert desk.due(alone=True, now=0.0) == [SEED]
    assert desk.due(alone=True, now=2.0) == []  # still under way
    desk.dialler.failed(SEED, 2.0)
    assert desk.due(alone=True, now=2.0 + 0.4 * LAN.redial_first_s) == []
    assert desk.due(alone=True, now=2.0 + 1.5 * LAN.redial_first_s) == [SEED]


def test_a_seed_is_dialled_once_when_asked_even_with_company(desk):
    desk.dialler.ask(SEED, 0.0)
    assert desk.due(alone=False, now=0.0) == [SEED]
    desk.dialler.failed(SEED, 0.1)
    assert all(desk.due(alone=False, now=float(now)) == [] for now in range(1, 100))
    desk.dialler.ask(SEED, 100.0)
    assert desk.due(alone=False, now=100.0) == [SEED]


def test_who_is_alone_again_returns_to_the_seeds(desk):
    desk.dialler.ask(SEED, 0.0)
    desk.due(alone=True, now=0.0)
    desk.dialler.linked(desk.high.peer_id, SEED)
    assert desk.due(alone=False, now=50.0) == []
    assert desk.due(alone=True, now=50.0 + LAN.heal_s) == [SEED]


def test_one_of_the_dead_is_tried_now_and_then(desk, member):
    dead = [member(n) for n in range(100, 104)]
    for record in dead:
        desk.befall(record, State.DEAD)
    now, tries = 0.0, []
    while len(tries) < 60:
        now = desk.dialler.wake_at()
        dials = desk.due(now=now)
        for target in dials:
            tries.append((now, target))
            desk.dialler.failed(target, now)
    assert {target for _, target in tries} == {record.peer_id for record in dead}
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(tries)]
    assert all(0.5 * LAN.heal_s <= gap <= 1.5 * LAN.heal_s for gap in gaps)


def test_the_dead_at_whose_address_a_live_member_answers_are_not_tried(desk, member):
    desk.befall(member(100, addresses=desk.high.addresses), State.DEAD)
    assert all(desk.due(now=float(now)) == [] for now in range(100))


def test_a_link_that_broke_at_once_is_dialled_after_a_wait(desk):
    desk.dialler.broken(desk.high.peer_id, 5.0)
    wait = desk.dialler._attempts[desk.high.peer_id].at - 5.0
    assert 0.5 * LAN.redial_first_s <= wait <= 1.5 * LAN.redial_first_s
    assert desk.due(desk.high, now=5.0) == []
    assert desk.due(desk.high, now=5.0 + wait) == [desk.high.peer_id]


def test_the_left_are_not_tried(desk, member):
    desk.befall(member(100), State.LEFT)
    assert all(desk.due(now=float(now)) == [] for now in range(100))


def test_a_dial_has_just_begun_for_half_of_its_time(desk):
    assert not desk.dialler.has_just_dialled(desk.high.peer_id, 0.0)
    desk.due(desk.high, now=5.0)
    assert desk.dialler.has_just_dialled(desk.high.peer_id, 5.0)
    assert desk.dialler.has_just_dialled(desk.high.peer_id, 5.0 + 0.99 * LAN.dial_timeout_s / 2)
    assert not desk.dialler.has_just_dialled(desk.high.peer_id, 5.0 + LAN.dial_timeout_s / 2)


@pytest.mark.parametrize("end", ["failed", "linked"])
def test_a_dial_that_ended_is_no_longer_under_way(desk, end):
    desk.due(desk.high, now=5.0)
    target = desk.high.peer_id
    if end == "failed":
        desk.dialler.failed(target, 5.0)
    else:
        desk.dialler.linked(target, target)
    assert not desk.dialler.has_just_dialled(target, 5.0)


def test_the_first_dial_after_a_lost_link_is_quick_and_repeated_at_once(desk):
    peer = desk.high.peer_id
    desk.dialler.lost(peer, 5.0)
    (quick,) = desk.dialler.due([peer], alone=False, now=5.0)
    assert quick == Dial(peer, desk.high.addresses, LAN.quick_dial_s)
    assert desk.dialler.failed(peer, 5.3)  # a mere look, which proves nothing
    assert desk.dialler.due([peer], alone=False, now=5.3 + 0.99 * LAN.flush_s) == []
    (second,) = desk.dialler.due([peer], alone=False, now=5.3 + LAN.flush_s)
    assert second == Dial(peer, desk.high.addresses, LAN.dial_timeout_s)
    assert not desk.dialler.failed(peer, 8.0)  # this one counts
    wait = desk.dialler._attempts[peer].at - 8.0
    assert 0.5 * LAN.redial_first_s <= wait <= 1.5 * LAN.redial_first_s


def test_a_failure_of_what_nobody_wanted_is_no_mere_look(desk, id_of):
    assert not desk.dialler.failed(id_of(77), 0.0)
    assert not desk.dialler.failed("ws://stranger:1", 0.0)
    desk.dialler.ask(SEED, 0.0)
    desk.due(now=0.0)
    assert not desk.dialler.failed(SEED, 0.1)


def test_a_seed_without_a_network_is_asked_again_soon_however_often_it_failed(desk):
    desk.dialler.ask(SEED, 0.0)
    now = 0.0
    for _ in range(6):
        assert desk.due(alone=True, now=now) == [SEED]
        desk.dialler.failed(SEED, now)
        now += 1.5 * LAN.redial_last_s
    assert desk.due(alone=True, now=now) == [SEED]
    desk.dialler.homeless(SEED, now)
    assert desk.due(alone=True, now=now + 0.49 * LAN.redial_first_s) == []
    assert desk.due(alone=True, now=now + 1.5 * LAN.redial_first_s) == [SEED]


def test_a_stranger_without_a_network_is_no_seed(desk):
    desk.dialler.homeless("ws://stranger:1", 0.0)
    assert desk.due(alone=True, now=1.0) == []


def test_of_a_dead_member_one_dial_is_under_way_at_a_time(desk, member):
    desk.befall(member(100), State.DEAD)
    found = [desk.due(now=float(now)) for now in range(100)]
    assert sum(map(len, found)) == 1


@given(
    seed=st.integers(0, 999),
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "wait",
                    "due",
                    "alone",
                    "lost",
                    "broken",
                    "fail",
                    "link",
                    "ask",
                    "home",
                    "mute",
                    "die",
                ]
            ),
            st.integers(0, 4),
            st.floats(0.0, 3.0),
        ),
        max_size=30,
    ),
)
def test_after_every_decision_the_next_one_lies_in_the_future(member, seed, steps):
    desk, now = Desk(member, seed), 0.0
    others = [desk.low, desk.lower, desk.high, desk.higher, member(7, addresses=())]
    desk.table.merge(others[-1], 0.0)
    for word, number, seconds in steps:
        who = others[number].peer_id
        now += seconds
        match word:
            case "lost":
                desk.dialler.lost(who, now)
            case "broken":
                desk.dialler.broken(who, now)
            case "home":
                desk.dialler.homeless(SEED, now)
            case "fail":
                desk.dialler.failed(who, now)
                desk.dialler.failed(SEED, now)
            case "link":
                desk.dialler.linked(who, who)
            case "ask":
                desk.dialler.ask(SEED, now)
            case "mute":
                desk.table.merge(member(0, incarnation=9, addresses=()), now)
            case "die":
                desk.befall(member(number), State.DEAD)
            case "wait":
                now = max(now, desk.dialler.wake_at())
        desk.due(*others[: number + 1], alone=word == "alone", now=now)


# Looking for those whom others call dead.


def test_those_to_look_for_are_dialled_one_after_the_other_wanted_or_not(desk):
    for one in (desk.high, desk.low, desk.high):
        desk.dialler.look(one.peer_id)
    assert desk.due(now=0.0) == [desk.high.peer_id]
    assert desk.dialler.wake_at() == LAN.redial_first_s
    assert not desk.dialler.failed(desk.high.peer_id, 0.1)  # not a mere look: it is evidence
    assert desk.due(now=0.2) == []
    assert desk.due(now=LAN.redial_first_s) == [desk.low.peer_id]
    desk.dialler.linked(desk.low.peer_id, desk.low.peer_id)
    assert desk.due(now=1.0) == []
    assert desk.dialler.wake_at() > 1.0


def test_only_so_many_are_looked_for_at_once(member):
    desk = Desk(member)
    others = [member(number) for number in range(5, 5 + LOOKS_AT_ONCE + 2)]
    for number, one in enumerate(others):
        desk.table.merge(one, 0.0)
        desk.dialler.look(one.peer_id)
        assert len(desk.due(now=0.31 * number)) == (number < LOOKS_AT_ONCE)
    desk.dialler.failed(others[0].peer_id, 3.4)
    assert desk.dialler.wake_at() <= 3.4
    assert desk.due(now=3.5) == [others[LOOKS_AT_ONCE].peer_id]


def test_who_links_up_by_itself_is_not_looked_for(desk):
    desk.dialler.look(desk.high.peer_id)
    desk.dialler.linked(desk.high.peer_id, "")
    assert desk.due(now=0.0) == []


def test_a_dial_that_is_under_way_is_look_enough(desk):
    assert desk.due(desk.high, now=0.0) == [desk.high.peer_id]
    for one in (desk.high, desk.low):
        desk.dialler.look(one.peer_id)
    assert desk.due(desk.high, now=0.1) == [desk.low.peer_id]
    assert desk.due(desk.high, now=0.5) == []
