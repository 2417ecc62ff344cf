import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import topology
from overlay.mixing_matrix import analyse

NETWORK = "n" * 52


def built(name, members, *, network=NETWORK, degree=6):
    result = topology.make(name, network, degree=degree)
    for peer in members:
        result.add(peer)
    return result


def edges(graph, members):
    return {frozenset((peer, other)) for peer in members for other in graph.neighbours(peer)}


members_of = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=40)
names = st.sampled_from(topology.NAMES)


@given(name=names, members=members_of)
def test_the_relation_is_symmetric_and_nobody_is_their_own_neighbour(name, members):
    graph = built(name, members)
    for peer in members:
        around = graph.neighbours(peer)
        assert peer not in around
        assert around <= members
        assert all(peer in graph.neighbours(other) for other in around)


@given(name=names, members=members_of, data=st.data())
def test_equal_members_give_equal_graphs_whatever_came_before(name, members, data):
    order = data.draw(st.permutations(sorted(members)))
    gone = data.draw(st.lists(st.text("xyz", min_size=1, max_size=3), max_size=5))
    winding = built(name, [*gone, *order, *order])
    for peer in gone:
        winding.remove(peer)
        winding.remove(peer)
    straight = built(name, sorted(members))
    assert all(winding.neighbours(p) == straight.neighbours(p) for p in members)
    assert all(not winding.neighbours(p) for p in gone)


@pytest.mark.parametrize("degree", [2, 4, 6, 8])
def test_few_members_form_the_full_mesh(degree):
    members = [str(n) for n in range(degree + 1)]
    graph = built("expander", members, degree=degree)
    assert all(graph.neighbours(peer) == set(members) - {peer} for peer in members)


@given(members=st.sets(st.integers(0, 10_000), min_size=8, max_size=60))
def test_the_degree_is_at_most_six_and_the_graph_connected(members):
    members = {str(n) for n in members}
    graph = built("expander", members)
    assert all(2 <= len(graph.neighbours(peer)) <= 6 for peer in members)
    assert analyse(topology.graph(graph.neighbours, members)).connected


@given(members=st.sets(st.integers(0, 10_000), min_size=8, max_size=60), new=st.integers(0, 10_000))
def test_a_join_or_a_leave_changes_at_most_two_links_and_mends_one_a_ring(members, new):
    members = {str(n) for n in members - {new}}
    if len(members) < 8:
        return
    graph, new = built("expander", members), str(new)
    before = edges(graph, members)
    graph.add(new)
    after = edges(graph, members | {new})
    assert len({e for e in after - before if new in e}) <= 6
    assert {e for e in after - before if new not in e} == set()
    assert len(before - after) <= 3
    graph.remove(new)
    assert edges(graph, members) == before


def test_another_network_has_another_graph():
    members = [str(n) for n in range(40)]
    one, other = built("expander", members), built("expander", members, network="m" * 52)
    assert edges(one, members) != edges(other, members)


def test_the_ring_has_two_neighbours_and_the_complete_graph_everybody():
    members = [str(n) for n in range(9)]
    ring, complete = built("ring", members), built("complete", members)
    assert {len(ring.neighbours(peer)) for peer in members} == {2}
    assert {len(complete.neighbours(peer)) for peer in members} == {8}


@pytest.mark.parametrize("name", topology.NAMES)
def test_strangers_and_loners_have_no_neighbours(name):
    graph = built(name, ["a"])
    assert graph.neighbours("a") == graph.neighbours("b") == frozenset()


def test_an_unknown_topology_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'star'; known: expander, complete, ring"):
        topology.make("star", NETWORK)


def test_the_expander_is_an_expander():
    members = [str(n) for n in range(256)]
    found = analyse(topology.graph(built("expander", members).neighbours, members))
    assert found.connected
    assert found.peers == 256
    assert found.degree_max == 6
    assert found.diameter <= 6
    assert found.spectral_gap >= 0.2
