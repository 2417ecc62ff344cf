import dataclasses

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import topology
from overlay.mixing_matrix import analyse
from overlay.rings import Rings
from overlay.topology import NAMES, NOBODY, Choice, NamedEdge

NETWORK = "n" * 52
EDGES = (NamedEdge("a", "b"), NamedEdge("b", "c"), NamedEdge("aa", "bc", one_way=True))
# Every name, with what it takes; degrees that small crowds cannot have among them.
CHOICES = [
    *(Choice(name, edges=EDGES if name == "static" else ()) for name in NAMES),
    Choice("expander", degree=2),
    Choice("random-regular", degree=3),
    Choice("erdos-renyi", probability=0.0),
    Choice("base-k", degree=1),
    Choice("random-matching", degree=1),
]
EVERY_CHOICE = pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.name}-{c.degree}")

peers = st.text("abcdef", min_size=1, max_size=2)
crowds = st.sets(peers, max_size=14)


def nobody_says(peer):
    return None


class Crowd:
    """A topology over members that come and go."""

    def __init__(self, choice, members, *, network=NETWORK, record_of=nobody_says):
        self.members = set()
        self._rings = Rings(network, choice.rings)
        self.graph = topology.make(
            choice, self._rings, self.members.__contains__, record_of, seed=network
        )
        for peer in members:
            self.come(peer)

    def come(self, peer):
        self._rings.add(peer)
        self.members.add(peer)
        self.graph.touch()

    def go(self, peer):
        self.members.discard(peer)
        self.graph.touch()

    def links(self):
        return {peer: self.graph.links(peer) for peer in sorted(self.members)}

    def edges(self):
        return {frozenset((one, other)) for one, links in self.links().items() for other in links}

    def rows(self):
        return {
            (peer, number): self.graph.row(peer, number)
            for peer in sorted(self.members)
            for number in range(self.graph.period)
        }

    def as_graph(self):
        result = nx.Graph(tuple(edge) for edge in self.edges())
        result.add_nodes_from(self.members)
        return result


def letters(count):
    """Names of `count` members in the order that the static edges above know."""
    return [first + second for first in ["", *"abcdef"] for second in "abcdef"][:count]


@EVERY_CHOICE
@given(members=crowds)
def test_links_are_symmetric_and_nobody_is_their_own_neighbour(choice, members):
    crowd = Crowd(choice, sorted(members))
    links = crowd.links()
    for peer, around in links.items():
        assert around <= members - {peer}
        assert all(peer in links[other] for other in around)


@EVERY_CHOICE
@given(members=crowds)
def test_whoever_mixes_has_a_link_and_every_link_is_used_in_some_round(choice, members):
    crowd = Crowd(choice, sorted(members))
    used = {peer: set() for peer in members}
    for (peer, number), row in crowd.rows().items():
        assert crowd.graph.row(peer, number + 3 * crowd.graph.period) == row
        for other in row:
            used[peer].add(other)
            used[other].add(peer)
    assert crowd.links() == used


@EVERY_CHOICE
@given(members=crowds, before=crowds, data=st.data())
def test_equal_members_give_equal_graphs_whatever_came_before(choice, members, before, data):
    winding = Crowd(choice, data.draw(st.permutations(sorted(before))))
    for peer in sorted(members):
        winding.links()
        winding.come(peer)
    for peer in data.draw(st.permutations(sorted(before - members))):
        winding.go(peer)
    straight = Crowd(choice, sorted(members))
    assert winding.links() == straight.links()
    assert winding.rows() == straight.rows()
    assert winding.graph.period == straight.graph.period
    assert all(winding.graph.links(gone) == frozenset() for gone in before - members)


@EVERY_CHOICE
def test_strangers_and_loners_have_no_neighbours(choice):
    for members in ([], ["a"]):
        crowd = Crowd(choice, members)
        for peer in ("a", "b"):
            assert crowd.graph.links(peer) == frozenset()
            assert crowd.graph.row(peer, 0) == NOBODY
        assert crowd.graph.period >= 1


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("expander", {4, 5, 6}),
        ("complete", {15}),
        ("ring", {2}),
        ("star", {1, 15}),
        ("torus", {4}),
        ("random-regular", {6}),
        ("exponential", {7}),  # 1, 2, 4, 8 both ways, of which 8 is its own opposite
        ("one-peer-exponential", {7}),
    ],
)
def test_each_name_is_the_graph_that_it_says(name, degrees):
    links = Crowd(Choice(name), letters(16)).links()
    assert {len(around) for around in links.values()} <= degrees
    assert Crowd(Choice(name), letters(16)).graph.is_local is (name == "expander")


@pytest.mark.parametrize(
    ("choice", "period"),
    [
        (Choice("ring"), 1),
        (Choice("expander"), 1),
        (Choice("one-peer-exponential"), 4),
        (Choice("random-matching", degree=3), 3),
        (Choice("base-k", degree=1), 4),
        (Choice("static"), 1),
    ],
)
def test_graphs_repeat_after_their_period(choice, period):
    assert Crowd(choice, letters(16)).graph.period == period


@pytest.mark.parametrize("name", ["one-peer-exponential", "random-matching"])
def test_a_member_meets_one_other_a_round(name):
    crowd = Crowd(Choice(name), letters(16))
    assert {len(row) for row in crowd.rows().values()} == {1}
    assert {weight for row in crowd.rows().values() for weight in row.values()} == {0.5}


@pytest.mark.parametrize(("degree", "at_most"), [(1, 1), (2, 2), (3, 3)])
def test_base_k_has_at_most_its_degree_of_partners_a_round(degree, at_most):
    rows = Crowd(Choice("base-k", degree=degree), letters(12)).rows()
    assert max(len(row) for row in rows.values()) == at_most


def test_the_members_are_numbered_in_the_order_of_the_first_ring():
    crowd = Crowd(Choice("ring"), letters(9))
    order = crowd._rings.order(crowd.members.__contains__)
    assert crowd.graph.links(order[0]) == {order[-1], order[1]}
    star = Crowd(Choice("star"), letters(9))
    assert star.graph.links(order[0]) == set(order[1:])


@pytest.mark.parametrize("name", ["ring", "complete", "star"])
def test_a_change_that_was_not_told_is_not_seen_and_one_that_was_is(name):
    crowd = Crowd(Choice(name), letters(6))
    before = crowd.edges()
    crowd.members.remove("c")
    assert any("c" in crowd.graph.links(peer) for peer in crowd.members)
    crowd.graph.touch()
    assert not any("c" in edge for edge in crowd.edges())
    crowd.come("c")
    assert crowd.edges() == before


# Expander.


@pytest.mark.parametrize("degree", [2, 4, 6, 8])
def test_few_members_form_the_full_mesh(degree):
    members = [str(n) for n in range(degree + 1)]
    links = Crowd(Choice(degree=degree), members).links()
    assert all(links[peer] == set(members) - {peer} for peer in members)


@given(members=st.sets(st.integers(0, 10_000), min_size=8, max_size=60))
def test_the_degree_is_at_most_six_and_the_expander_connected(members):
    crowd = Crowd(Choice(), [str(n) for n in sorted(members)])
    assert all(2 <= len(around) <= 6 for around in crowd.links().values())
    assert nx.is_connected(crowd.as_graph())


@given(members=st.sets(st.integers(0, 10_000), min_size=9, max_size=60), new=st.integers(0, 10_000))
def test_a_join_or_a_leave_changes_at_most_two_links_and_mends_one_a_ring(members, new):
    crowd, new = Crowd(Choice(), [str(n) for n in sorted(members - {new})]), str(new)
    before = crowd.edges()
    crowd.come(new)
    after = crowd.edges()
    assert 2 <= len({edge for edge in after - before if new in edge}) <= 6
    assert {edge for edge in after - before if new not in edge} == set()
    assert len(before - after) <= 3
    crowd.go(new)
    assert crowd.edges() == before


@pytest.mark.parametrize("choice", [Choice(), Choice("ring"), Choice("random-regular")])
def test_another_network_has_another_graph(choice):
    members = letters(40)
    one, other = Crowd(choice, members), Crowd(choice, members, network="m" * 52)
    assert one.edges() != other.edges()


@pytest.mark.parametrize(
    ("choice", "rings"),
    [(Choice(), 3), (Choice(degree=4), 2), (Choice(degree=1), 1), (Choice("ring", degree=8), 1)],
)
def test_only_the_expander_needs_more_than_one_ring(choice, rings):
    assert choice.rings == rings


# Static.


def static(*edges, members="abcd", record_of=nobody_says):
    return Crowd(Choice("static", edges=edges), members, record_of=record_of).graph


def test_a_static_edge_joins_both_ends_with_its_weight():
    graph = static(NamedEdge("a", "b", 0.25), NamedEdge("b", "c", 0.5))
    assert graph.row("a", 0) == {"b": 0.25}
    assert graph.row("b", 0) == {"a": 0.25, "c": 0.5}
    assert graph.row("d", 0) == {}
    assert graph.links("b") == {"a", "c"}


def test_a_one_way_edge_is_taken_in_by_its_other_end_and_linked_at_both():
    graph = static(NamedEdge("a", "b", 0.25, one_way=True))
    assert (graph.row("a", 0), graph.row("b", 0)) == ({}, {"a": 0.25})
    assert (graph.links("a"), graph.links("b")) == ({"b"}, {"a"})


def test_an_edge_without_a_weight_is_left_to_the_rule():
    assert static(NamedEdge("a", "b")).row("a", 0) == {"b": None}


def test_an_edge_of_somebody_who_is_not_there_waits_for_them():
    crowd = Crowd(Choice("static", edges=(NamedEdge("a", "z"), NamedEdge("a", "b"))), "ab")
    assert crowd.graph.row("a", 0) == {"b": None}
    crowd.come("z")
    assert crowd.graph.row("a", 0) == {"b": None, "z": None}
    crowd.go("b")
    assert crowd.graph.row("a", 0) == {"z": None}


@pytest.fixture
def named(member):
    """named(*names): ids of members with these names, and the table they are looked up in."""

    def named(*names):
        records = [member(number, name=name) for number, name in enumerate(names)]
        return [r.peer_id for r in records], {r.peer_id: r for r in records}.get

    return named


def test_edges_go_by_id_or_by_name(named):
    (ann, bob, cy), record_of = named("ann", "bob", "cy")
    edges = (NamedEdge("ann", bob), NamedEdge(bob, "cy"))
    graph = static(*edges, members=[ann, bob, cy], record_of=record_of)
    assert graph.row(bob, 0) == {ann: None, cy: None}


def test_a_name_that_two_have_is_that_of_the_first_in_the_order(named):
    ids, record_of = named("ann", "twin", "twin")
    crowd = Crowd(Choice("static", edges=(NamedEdge("ann", "twin"),)), ids, record_of=record_of)
    (first,) = [p for p in crowd._rings.order(lambda peer: True) if p in ids[1:]][:1]
    assert crowd.graph.links(ids[0]) == {first}
    crowd.go(first)
    assert crowd.graph.links(ids[0]) == set(ids[1:]) - {first}


def test_an_id_is_never_taken_for_a_name(named):
    ids, record_of = named("ann", "bob", "cy")
    impostor = dataclasses.replace(record_of(ids[2]), name=ids[1])
    crowd = Crowd(
        Choice("static", edges=(NamedEdge(ids[0], ids[1]),)),
        ids,
        record_of=lambda peer: impostor if peer == ids[2] else record_of(peer),
    )
    assert crowd.graph.links(ids[0]) == {ids[1]}


@pytest.mark.parametrize(
    ("names", "edges"),
    [
        # (by position) the edge's second end took the first one's name
        (("other", "ann"), [("ann", 1)]),
        # the same edge by names and by ids
        (("ann", "bob"), [("ann", "bob"), (0, 1)]),
    ],
)
def test_no_name_that_a_member_gives_itself_breaks_the_graph_of_the_others(named, names, edges):
    """Names are the members' own word: what they make of an explicit graph is nobody's crash."""
    ids, record_of = named(*names, "cy", "dee")
    ends = [[ids[end] if isinstance(end, int) else end for end in edge] for edge in edges]
    given_edges = [NamedEdge(*pair) for pair in (*ends, ("cy", "dee"))]
    graph = static(*given_edges, members=ids, record_of=record_of)
    assert graph.links(ids[2]) == {ids[3]}
    assert ids[0] not in graph.links(ids[0])


# The graph as experiments use it.


@pytest.mark.parametrize("name", [name for name in NAMES if name != "static"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 13])
def test_the_graph_of_an_experiment_has_all_members_and_no_loops(name, count):
    found = topology.graph(Choice(name), count, 0, seed="s")
    assert list(found.nodes) == list(range(count))
    assert nx.number_of_selfloops(found) == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "static"])
def test_the_rounds_of_an_experiment_are_those_of_a_network(name):
    """Equal up to the names of the places."""
    crowd = Crowd(Choice(name), [str(n) for n in range(12)], network="s")
    order = crowd._rings.order(lambda peer: True)
    names = {n: str(n) if name == "expander" else order[n] for n in range(12)}
    for number in range(crowd.graph.period):
        found = topology.graph(Choice(name), 12, number, seed="s")
        directed = nx.relabel_nodes(nx.DiGraph(found), names)
        for peer in order:
            weights = {u: directed.edges[u, peer].get("weight") for u in directed.pred[peer]}
            assert weights == crowd.graph.row(peer, number)


def test_equal_seeds_give_equal_graphs_and_others_others():
    for name in ("expander", "random-regular", "erdos-renyi", "random-matching"):
        one, same, other = (
            topology.graph(Choice(name, degree=4), 20, 0, seed=seed) for seed in ("s", "s", "t")
        )
        assert nx.utils.graphs_equal(one, same)
        assert not nx.utils.graphs_equal(one, other)


@pytest.mark.parametrize("name", ["static", "clique", ""])
def test_a_graph_without_names_or_with_an_unknown_one_is_refused(name):
    with pytest.raises(ValueError, match="there is no"):
        topology.graph(Choice(name), 4, 0)


def test_an_unknown_topology_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'clique'; known: expander, complete, .*static"):
        Crowd(Choice("clique"), "ab")


def test_the_names_are_unique_and_begin_with_the_default():
    assert len(set(NAMES)) == len(NAMES)
    assert NAMES[0] == Choice().name


def test_the_expander_is_an_expander():
    found = analyse(topology.graph(Choice(), 256, 0, seed=NETWORK))
    assert found.connected
    assert found.peers == 256
    assert found.degree_max == 6
    assert found.diameter <= 6
    assert found.spectral_gap >= 0.2
