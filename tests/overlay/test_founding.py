import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.founding import GONE_AFTER, HOP_SHARE, MAX_SAID_S, Candidacy, Founding
from overlay.profile import PROFILES

LAN = PROFILES["lan"]
WAIT_S = LAN.founding_s
HOP_S = HOP_SHARE * WAIT_S
GONE_S = GONE_AFTER * WAIT_S
SEED = "ws://seed:1"
LOW, ME, HIGH = "a" * 52, "m" * 52, "z" * 52


@pytest.fixture
def founding():
    return Founding(ME, WAIT_S)


class Crowd:
    """Peers without a network that ask each other, about as often as the dialler repeats: what is
    said is heard `trip_s` later, and answered then."""

    def __init__(self, count, *, seed=0, trip_s=0.0):
        self._rng = random.Random(seed)
        self._trip_s = trip_s
        self.now = 100.0
        self.ids = [chr(ord("a") + number) * 52 for number in range(count)]
        self.peers = {peer: Founding(peer, WAIT_S) for peer in self.ids}
        self.founders = []
        self._asks_at = {
            pair: self.now + self._wait() for pair in itertools.permutations(self.ids, 2)
        }
        self._under_way = []  # (when, to, what, whom to answer)

    def _wait(self):
        return LAN.redial_first_s * self._rng.uniform(0.5, 1.5)

    def run_for(self, duration_s, step_s=0.01):
        for _ in range(round(duration_s / step_s)):
            self.now += step_s
            self._hear()
            for (asker, asked), at in self._asks_at.items():
                if at <= self.now and {asker, asked} <= self.peers.keys():
                    self._asks_at[asker, asked] = self.now + self._wait()
                    self._say(asker, asked, answer=True)
            self._hear()
            for peer, founding in self.peers.items():
                if founding.take(self.now):
                    self.founders.append((self.now, peer))

    def _say(self, speaker, to, *, answer):
        said = self.peers[speaker].says(self.now)
        self._under_way.append((self.now + self._trip_s, to, said, speaker if answer else None))

    def _hear(self):
        while due := [said for said in self._under_way if said[0] <= self.now]:
            self._under_way = [said for said in self._under_way if said[0] > self.now]
            for _, to, said, answer_to in due:
                if to in self.peers:
                    self.peers[to].meet(said, self.now)
                    if answer_to is not None:
                        self._say(to, answer_to, answer=False)

    def first_founder(self, within_s):
        begin = self.now
        while not self.founders and self.now < begin + within_s:
            self.run_for(0.1)
        return self.founders[0] if self.founders else None


# One peer.


def test_a_peer_that_met_nobody_never_founds(founding):
    assert founding.due_at() == math.inf
    assert not founding.take(1e9)
    assert founding.says(5.0) == Candidacy(ME, 0.0, 0.0)


def test_the_lowest_of_those_it_met_founds_after_a_while(founding):
    founding.meet(Candidacy(HIGH, 0.0, 0.0), 10.0)
    assert founding.due_at() == 10.0 + WAIT_S
    founding.meet(Candidacy(HIGH, 0.0, 0.0), 12.0)  # the while is counted from the first
    assert not founding.take(9.999 + WAIT_S)
    assert founding.take(10.0 + WAIT_S)


def test_who_meets_nobody_any_more_goes_on_looking(founding):
    founding.meet(Candidacy(HIGH, 0.0, 2 * GONE_S), 10.0)
    assert founding.due_at() == math.inf
    assert not founding.take(10.0 + 3 * GONE_S)
    founding.meet(Candidacy(HIGH, 0.0, 0.0), 10.0 + 3 * GONE_S)
    assert founding.take(10.0 + 3 * GONE_S)


def test_who_heard_of_a_lower_one_leaves_it_to_that_one_and_says_so(founding):
    founding.meet(Candidacy(LOW, 0.0, 0.0), 10.0)
    assert not founding.take(10.0 + WAIT_S)
    said = founding.says(10.0 + WAIT_S)
    assert said.lowest == LOW
    assert said.age_s == pytest.approx(WAIT_S + HOP_S)  # older than the time it lay here


def test_a_lower_one_is_believed_as_long_as_it_was_heard_of_lately(founding):
    for second in range(10, 40, 3):
        founding.meet(Candidacy(LOW, 0.5, 0.0), float(second))
        founding.meet(Candidacy(LOW, GONE_S - 1.0, 0.0), float(second))  # older word of it
        assert founding.due_at() == pytest.approx(second - 0.5 - HOP_S + GONE_S)
        assert not founding.take(second + 2.9)
    assert founding.says(40.0).lowest == LOW


def test_a_lower_one_that_was_not_heard_of_for_long_is_given_up(founding):
    founding.meet(Candidacy(LOW, 0.0, 0.0), 10.0)
    gone = 10.0 - HOP_S + GONE_S
    assert founding.says(gone - 0.01).lowest == LOW
    assert not founding.take(gone + 0.01)
    assert founding.says(gone + 0.01).lowest == ME
    founding.meet(Candidacy(HIGH, 0.0, 0.0), gone + 1.0)
    assert not founding.take(gone - 0.01 + WAIT_S)  # a while from then on
    assert founding.take(gone + 0.02 + WAIT_S)


def test_an_echo_of_one_that_has_gone_is_not_believed(founding):
    founding.meet(Candidacy(LOW, GONE_S - HOP_S + 0.01, 0.0), 10.0)
    assert founding.says(10.0).lowest == ME
    founding.meet(Candidacy(LOW, GONE_S - HOP_S - 0.01, 0.0), 10.0)
    assert founding.says(10.0).lowest == LOW


def test_while_a_seed_does_not_answer_nobody_founds_and_that_is_said(founding):
    founding.meet(Candidacy(HIGH, 0.0, 0.0), 10.0)
    founding.missed(SEED)
    assert founding.due_at() == math.inf
    assert not founding.take(11.0 + WAIT_S)
    assert founding.says(50.0) == Candidacy(ME, 0.0, WAIT_S)
    founding.meet(Candidacy(HIGH, 0.0, 0.0), 51.0)
    assert founding.due_at() == math.inf
    founding.reached(SEED)
    assert founding.due_at() == 50.0 + WAIT_S  # whoever heard this holds for so long
    assert not founding.take(49.9 + WAIT_S)
    assert founding.take(50.0 + WAIT_S)


def test_every_missing_seed_counts(founding):
    founding.meet(Candidacy(HIGH, 0.0, 0.0), 10.0)
    founding.missed(SEED)
    founding.missed("ws://other:1")
    founding.missed(SEED)
    founding.reached(SEED)
    assert founding.due_at() == math.inf
    founding.reached("ws://other:1")
    founding.reached("ws://never-missed:1")
    assert founding.due_at() == 10.0 + WAIT_S


def test_what_others_miss_is_passed_on_with_less_than_is_left_of_it(founding):
    founding.meet(Candidacy(HIGH, 0.0, 2.0), 10.0)
    assert founding.says(10.5).hold_s == pytest.approx(1.5 - HOP_S)
    founding.meet(Candidacy(HIGH, 0.0, 0.5), 10.5)  # less than is known
    assert founding.says(11.0).hold_s == pytest.approx(1.0 - HOP_S)
    assert founding.says(13.0).hold_s == 0.0


def test_a_hold_beyond_the_while_is_kept(founding):
    founding.meet(Candidacy(HIGH, 0.0, WAIT_S + 1.0 + HOP_S), 10.0)
    assert founding.due_at() == pytest.approx(11.0 + WAIT_S)
    assert not founding.take(10.9 + WAIT_S)
    assert founding.take(11.1 + WAIT_S)


def test_what_is_said_is_always_well_formed(founding):
    slow = Founding(ME, 2 * MAX_SAID_S)
    slow.missed(SEED)
    assert slow.says(1.0).hold_s == MAX_SAID_S
    slow.meet(Candidacy(LOW, MAX_SAID_S, 0.0), 2.0)
    assert slow.says(3.0).age_s == MAX_SAID_S
    founding.meet(Candidacy(LOW, 0.0, MAX_SAID_S), 10.0)
    assert founding.says(9.0).age_s == 0.0  # a clock that seems to go back


# Several.


@pytest.mark.parametrize("trip_s", [0.0, 0.02, LAN.trip_s / 2])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_peers_that_all_join_each_other_elect_just_the_lowest(count, trip_s):
    crowd = Crowd(count, seed=count, trip_s=trip_s)
    at, founder = crowd.first_founder(3 * WAIT_S)
    assert founder == crowd.ids[0]
    assert at >= 100.0 + WAIT_S
    crowd.run_for(2.0)  # the others have long been told by then
    assert {peer for _, peer in crowd.founders} == {founder}


def test_the_lowest_is_heard_of_along_a_chain():
    crowd = Crowd(6)
    order = [5, 0, 4, 2, 3, 1]
    near = {frozenset((crowd.ids[a], crowd.ids[b])) for a, b in itertools.pairwise(order)}
    crowd._asks_at = {p: at for p, at in crowd._asks_at.items() if frozenset(p) in near}
    _, founder = crowd.first_founder(3 * WAIT_S)
    assert founder == crowd.ids[0]
    crowd.run_for(2.0)
    assert {peer for _, peer in crowd.founders} == {founder}


@pytest.mark.parametrize("who", [0, 1, 3])
def test_nobody_founds_while_a_seed_of_anybody_does_not_answer(who):
    crowd = Crowd(4, trip_s=0.02)
    crowd.peers[crowd.ids[who]].missed(SEED)
    crowd.run_for(6 * WAIT_S, step_s=0.02)
    assert crowd.founders == []


@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.parametrize("trip_s", [0.0, 0.02, LAN.trip_s / 2])
def test_a_hold_ends_with_its_cause_and_never_echoes_on(count, trip_s):
    crowd = Crowd(count, seed=count, trip_s=trip_s)
    crowd.peers[crowd.ids[-1]].missed(SEED)
    crowd.run_for(2 * WAIT_S, step_s=0.02)
    crowd.peers[crowd.ids[-1]].reached(SEED)
    at, founder = crowd.first_founder(4 * WAIT_S)
    assert founder == crowd.ids[0]
    assert at >= 100.0 + 2 * WAIT_S


def test_a_hold_ends_though_whoever_said_it_is_gone():
    crowd = Crowd(5, trip_s=0.02)
    crowd.peers[crowd.ids[-1]].missed(SEED)
    crowd.run_for(WAIT_S)
    del crowd.peers[crowd.ids[-1]]
    _, founder = crowd.first_founder(4 * WAIT_S)
    assert founder == crowd.ids[0]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.0, 0.5)), max_size=60
    )
)
def test_without_a_cause_no_exchange_puts_the_end_of_a_hold_off(steps):
    """Said and heard in the same moment, in whatever order."""
    peers = [Founding(letter * 52, WAIT_S) for letter in "abcd"]
    now = 100.0
    peers[3].missed(SEED)
    peers[2].meet(peers[3].says(now), now)
    peers[3].reached(SEED)
    for speaker, hearer, wait_s in steps:
        now += wait_s
        peers[hearer].meet(peers[speaker].says(now), now)
        assert all(now + peer.says(now).hold_s <= max(now, 100.0 + WAIT_S) + 1e-6 for peer in peers)


@pytest.mark.parametrize("count", [3, 4, 6])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_lowest_that_has_gone_is_outlived(count, seed):
    """It was nobody's seed, so that nobody misses it: it asked, and was killed."""
    crowd = Crowd(count, seed=seed, trip_s=0.02)
    crowd.run_for(1.0)
    gone = crowd.ids[0]
    assert {peer.says(crowd.now).lowest for peer in crowd.peers.values()} == {gone}
    del crowd.peers[gone]
    found = crowd.first_founder(20 * WAIT_S)
    assert found is not None, "everybody still waits for a peer that is gone"
    assert found[1] == crowd.ids[1]
