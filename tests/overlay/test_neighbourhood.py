import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.neighbourhood import MAX_OBSERVERS, Neighbourhood
from overlay.records import State

NETWORK = "n" * 52

kinds = st.lists(st.tuples(st.booleans(), st.sampled_from(State)), min_size=1, max_size=25)


def placed(member, described, **options):
    records = [
        member(n, learner=trains, state=state) for n, (trains, state) in enumerate(described)
    ]
    hood = Neighbourhood(NETWORK, [])
    hood.rebuild(NETWORK, records, **options)
    return hood, records


@given(described=kinds, name=st.sampled_from(["expander", "ring", "complete"]))
def test_being_neighbours_and_the_members_in_it_agree_on_both_sides(member, described, name):
    hood, records = placed(member, described, name=name)
    live = {record.peer_id for record in records if record.is_live}
    for record in records:
        around = hood.neighbours(record.peer_id)
        assert around <= live - {record.peer_id}
        assert all(record.peer_id in hood.neighbours(other) for other in around)
        assert hood.observers(record.peer_id) <= live - {record.peer_id}


@given(described=kinds)
def test_trackers_never_take_a_place_in_the_training_graph(member, described):
    mixed, records = placed(member, described)
    trainers = [record for record in records if record.is_live and record.learner]
    pure = Neighbourhood(NETWORK, trainers)
    trains = {record.peer_id for record in trainers}
    for record in trainers:
        peer = record.peer_id
        assert mixed.neighbours(peer) & trains == pure.neighbours(peer)


@given(described=kinds, data=st.data())
def test_following_the_table_gives_what_a_rebuild_gives(member, described, data):
    fresh, records = placed(member, described)
    winding = Neighbourhood(NETWORK, [member(n) for n in range(len(records))])
    for record in data.draw(st.permutations(records)):
        winding.place(record)
    for record in records:
        assert winding.neighbours(record.peer_id) == fresh.neighbours(record.peer_id)


def test_a_lonely_tracker_is_linked_to_the_learners(member):
    hood, records = placed(member, [(False, State.ALIVE)] + [(True, State.ALIVE)] * 3)
    tracker = records[0].peer_id
    assert hood.neighbours(tracker) == {record.peer_id for record in records[1:]}


def test_the_observers_are_the_neighbours_unless_those_are_too_many(member):
    few, records = placed(member, [(True, State.ALIVE)] * 20)
    many, _ = placed(member, [(True, State.ALIVE)] * 20, name="complete")
    for peer in (record.peer_id for record in records):
        assert few.observers(peer) == few.neighbours(peer)
        assert many.observers(peer) == few.neighbours(peer)
        assert len(many.observers(peer)) <= MAX_OBSERVERS


@pytest.mark.parametrize(("name", "degree"), [("ring", 2), ("complete", 19), ("expander", 4)])
def test_a_rebuild_takes_another_topology_and_keeps_it(name, degree, member):
    hood, records = placed(member, [(True, State.ALIVE)] * 20, name=name, degree=degree)
    hood.rebuild(NETWORK, records)
    assert hood.name == name
    assert all(len(hood.neighbours(record.peer_id)) <= degree for record in records)
