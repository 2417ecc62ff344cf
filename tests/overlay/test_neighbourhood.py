import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.membership import Membership
from overlay.neighbourhood import MEMBERSHIP_RINGS, Neighbourhood
from overlay.records import Fate, State
from overlay.rings import Rings
from overlay.topology import Choice

NETWORK = "n" * 52
FATES = (State.SUSPECT, State.DEAD, State.LEFT)
STATES = (State.ALIVE, State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT)

kinds = st.lists(st.tuples(st.booleans(), st.sampled_from(STATES)), min_size=1, max_size=25)
choices = st.sampled_from(
    [Choice(), Choice(degree=2), Choice(degree=10), Choice("ring"), Choice("complete")]
)


class Village:
    """A table and the neighbourhood that follows it, as the peer `me` holds them."""

    def __init__(self, member, count, *, me=0, choice=None, learner=lambda number: True):
        self._member = member
        self._learner = learner
        self.ids = [member(number).peer_id for number in range(count)]
        self.table = Membership(self._record(me, 1))
        self.hood = Neighbourhood(NETWORK, self.table)
        if choice is not None:
            self.hood.rebuild(NETWORK, choice)
        for number in range(count):
            self.come(number)

    def _record(self, number, incarnation, **changes):
        changes.setdefault("learner", self._learner(number))
        return self._member(number, incarnation=incarnation, **changes)

    def come(self, number, incarnation=1, **changes):
        self.follow(self.table.merge(self._record(number, incarnation, **changes), 0.0))

    def befall(self, number, state, incarnation=1):
        fate = Fate(self._member(number).peer_id, incarnation, state)
        self.follow(self.table.judge(fate, 0.0))

    def follow(self, change):
        if change is not None:
            self.hood.follow([change])

    def fresh(self):
        """What somebody computes who reads the table only now."""
        hood = Neighbourhood(NETWORK, self.table)
        hood.rebuild(NETWORK, self.hood.choice)
        return hood


def settled(member, described, choice=None):
    village = Village(
        member, len(described), choice=choice, learner=lambda number: described[number][0]
    )
    for number, (_, state) in enumerate(described[1:], start=1):
        if state is not State.ALIVE:
            village.befall(number, state)
    return village


def links_by_peer(village):
    """wanted of every member, each computed by that member."""
    wanted = {}
    for peer in village.table.live_ids():
        table = village.table.fork(peer)
        hood = Neighbourhood(NETWORK, table)
        hood.rebuild(NETWORK, village.hood.choice)
        wanted[peer] = hood.wanted
    return wanted


@given(described=kinds, choice=choices)
def test_links_and_observers_agree_on_both_sides_and_are_live_members(member, described, choice):
    described = [(trains, State.ALIVE if s is State.SUSPECT else s) for trains, s in described]
    village = settled(member, described, choice)
    wanted = links_by_peer(village)
    hood = village.hood
    live = set(village.table.live_ids())
    for peer in village.ids:
        around = hood.observers(peer)
        assert around <= live - {peer}
        assert all(peer in hood.observers(other) for other in around)
    for peer, around in wanted.items():
        assert hood.observers(peer) <= around <= live - {peer}
        assert all(peer in wanted[other] for other in around)


@given(described=kinds, choice=choices)
def test_trackers_never_take_a_place_in_the_mixing_graph(member, described, choice):
    hood = settled(member, described, choice).hood
    alone = Village(member, 1, choice=choice, learner=lambda number: described[number][0])
    for number, (trains, state) in enumerate(described):
        if trains and state in (State.ALIVE, State.SUSPECT):
            alone.come(number)
    for number, (trains, state) in enumerate(described):
        peer = member(number).peer_id
        mixing = hood.mixing(peer, 0)
        live = state in (State.ALIVE, State.SUSPECT) or number == 0
        assert mixing == (alone.hood.mixing(peer, 0) if trains and live else {})
    assert set(hood.learners()) <= set(hood.members())


@given(described=kinds, choice=choices, data=st.data())
def test_following_the_table_gives_what_reading_it_anew_gives(member, described, choice, data):
    """Asked after every single change, so that nothing stale is kept."""
    count = len(described)
    trains = [trains for trains, _ in described]
    village = Village(member, count, choice=choice, learner=lambda number: trains[number])
    happens = [(n, state) for n, (_, state) in enumerate(described) if n and state != State.ALIVE]
    for number, state in data.draw(st.permutations(happens)):
        village.befall(number, state)
        fresh = village.fresh()
        assert village.hood.wanted == fresh.wanted
        assert village.hood.watched == fresh.watched
        assert village.hood.members() == fresh.members()


@pytest.mark.parametrize("learners", [3, 5, 8, 9, 10])
def test_links_to_learners_are_mended_when_one_of_few_goes_among_many_trackers(member, learners):
    """Few learners are all linked, however many trackers there are: a going can add links."""
    for gone in range(1, learners):
        village = Village(member, learners + 15, learner=lambda number: number < learners)
        assert village.hood.wanted
        village.befall(gone, State.DEAD)
        assert village.hood.wanted == village.fresh().wanted


@pytest.mark.parametrize("number", range(1, 30))
def test_any_one_that_goes_of_thirty_leaves_nothing_stale(member, number):
    village = Village(member, 30)
    before = village.hood.wanted
    village.befall(number, State.DEAD)
    assert village.hood.wanted == village.fresh().wanted
    assert village.ids[number] not in village.hood.wanted
    if village.ids[number] not in before:
        assert village.hood.wanted == before


@pytest.mark.parametrize("me", range(8))
def test_the_seven_that_are_left_of_eight_are_all_linked(member, me):
    for gone in range(8):
        if gone != me:
            village = Village(member, 8, me=me)
            assert village.hood.wanted
            village.befall(gone, State.DEAD)
            assert village.hood.wanted == set(village.ids) - {village.ids[me], village.ids[gone]}


@pytest.mark.parametrize("name", ["torus", "exponential", "random-regular"])
def test_a_graph_that_numbers_its_members_is_built_anew_for_any_one_that_goes(member, name):
    for gone in range(1, 24, 3):
        village = Village(member, 24, choice=Choice(name))
        assert village.hood.wanted
        village.befall(gone, State.DEAD)
        assert village.hood.wanted == village.fresh().wanted


@given(data=st.data())
def test_many_changes_at_once_leave_nothing_stale(member, data):
    village = Village(member, 24, learner=lambda number: number % 4 > 0)
    assert village.hood.wanted
    for _ in range(3):
        fates = [
            Fate(
                village.ids[number], data.draw(st.integers(1, 3)), data.draw(st.sampled_from(FATES))
            )
            for number in data.draw(st.sets(st.integers(1, 23)))
        ]
        village.hood.follow(village.table.judge_many(fates, 0.0))
        assert village.hood.wanted == village.fresh().wanted
        assert village.hood.watched == village.fresh().watched


def test_a_newcomer_and_a_return_are_followed(member):
    village = Village(member, 8)
    village.befall(3, State.DEAD)
    assert village.ids[3] not in village.hood.wanted
    village.come(3, incarnation=2)
    assert village.hood.wanted == village.fresh().wanted
    for number in range(8, 30):
        village.come(number)
        assert village.hood.wanted == village.fresh().wanted


def test_one_that_starts_or_stops_training_moves_the_mixing_graph(member):
    village = Village(member, 20)
    village.come(5, incarnation=2, learner=False)
    assert village.hood.mixing(village.ids[5], 0) == {}
    assert village.ids[5] not in village.hood.learners()
    assert village.ids[5] in village.hood.members()
    assert village.hood.wanted == village.fresh().wanted
    village.come(5, incarnation=3, learner=True)
    assert village.ids[5] in village.hood.learners()


def test_the_suspect_keep_their_place(member):
    village = Village(member, 20)
    before = links_by_peer(village)
    village.befall(7, State.SUSPECT)
    assert village.hood.wanted == before[village.ids[0]]
    assert village.hood.observers(village.ids[7]) == village.fresh().observers(village.ids[7])
    assert village.ids[7] in village.hood.learners()


def test_everybody_watches_the_neighbours_on_the_membership_rings_whatever_the_job_is(member):
    village = Village(member, 20)
    watched = village.hood.watched
    assert 3 <= len(watched) <= 2 * MEMBERSHIP_RINGS
    assert watched == village.hood.wanted
    for choice in (Choice("star"), Choice("complete"), Choice(degree=12), Choice("static")):
        village.hood.rebuild(NETWORK, choice)
        assert village.hood.watched == watched
        assert village.hood.wanted >= watched
    village.hood.rebuild(NETWORK, Choice("complete"))
    assert village.hood.wanted == set(village.ids) - {village.ids[0]}


def test_a_lonely_tracker_is_linked_to_the_learners(member):
    village = Village(member, 4, learner=lambda number: number > 0)
    assert village.hood.wanted == set(village.ids[1:])
    assert village.hood.mixing(village.ids[0], 0) == {}


def test_nobody_observes_the_dead_or_a_stranger(member, id_of):
    village = Village(member, 5)
    village.befall(2, State.DEAD)
    assert village.hood.observers(village.ids[2]) == frozenset()
    assert village.hood.observers(id_of(77)) == frozenset()
    assert village.hood.mixing(id_of(77), 0) == {}


def test_the_forgotten_leave_the_order(member):
    village = Village(member, 12)
    village.befall(4, State.DEAD)
    assert village.hood.rings.order(lambda peer: True).count(village.ids[4]) == 1
    village.hood.forget(village.ids[4])
    assert village.ids[4] not in village.hood.rings.order(lambda peer: True)


@pytest.mark.parametrize("choice", [Choice("ring"), Choice("complete"), Choice(degree=4)])
def test_a_rebuild_takes_another_topology(member, choice):
    village = Village(member, 20)
    assert village.hood.choice == Choice()
    village.hood.rebuild(NETWORK, choice)
    assert village.hood.choice == choice
    degrees = {len(village.hood.mixing(peer, 0)) for peer in village.ids}
    assert max(degrees) == {"ring": 2, "complete": 19, "expander": 4}[choice.name]


def test_another_network_has_other_neighbours(member):
    village = Village(member, 40)
    before = village.hood.wanted
    village.hood.rebuild("m" * 52, Choice())
    assert village.hood.wanted != before


def test_an_order_that_exists_already_is_used(member):
    village = Village(member, 20)
    rings = Rings(NETWORK, MEMBERSHIP_RINGS)
    for peer in village.ids:
        rings.add(peer)
    hood = Neighbourhood(NETWORK, village.table, rings=rings)
    assert hood.rings is rings
    assert hood.wanted == village.hood.wanted
    assert hood.me == village.ids[0]
