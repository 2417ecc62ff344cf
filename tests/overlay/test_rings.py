import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.rings import Rings

NETWORK = "n" * 52

peers = st.text("abcdef", min_size=1, max_size=3)
crowds = st.sets(peers, max_size=40)


def placed(members, *, count=3, network=NETWORK):
    rings = Rings(network, count)
    for peer in members:
        rings.add(peer)
    return rings


def everybody(peer):
    return True


def by_hand(rings, peer, members, count):
    """The neighbours by their definition: those before and after, on each ring alone."""
    found = set()
    for number in range(count):
        ring = [p for _, p in rings._rings[number] if p in members]
        at = ring.index(peer)
        found |= {ring[at - 1], ring[(at + 1) % len(ring)]}
    return found - {peer}


@given(known=crowds, gone=crowds, count=st.integers(1, 4))
def test_neighbours_are_members_and_have_each_other(known, gone, count):
    rings, members = placed(sorted(known), count=count), known - gone
    for peer in members:
        around = rings.around(peer, count, members.__contains__)
        assert around <= members - {peer}
        assert all(peer in rings.around(other, count, members.__contains__) for other in around)


@given(known=st.sets(peers, min_size=9), gone=crowds, count=st.integers(1, 3))
def test_the_gone_are_skipped_as_if_they_had_never_been(known, gone, count):
    everyone, members = placed(sorted(known), count=count), known - gone
    alone = placed(sorted(members), count=count)
    assert everyone.order(members.__contains__) == alone.order(everybody)
    for peer in members:
        around = everyone.around(peer, count, members.__contains__)
        assert around == alone.around(peer, count, everybody)


@given(members=crowds, before=crowds, data=st.data())
def test_equal_members_give_equal_rings_whatever_came_before(members, before, data):
    winding = placed([*data.draw(st.permutations(sorted(before))), *sorted(members)])
    for peer in data.draw(st.permutations(sorted(before - members))):
        winding.discard(peer)
        winding.discard(peer)
    straight = placed(data.draw(st.permutations(sorted(members))))
    assert winding._rings == straight._rings
    assert winding.order(everybody) == straight.order(everybody)


@given(members=st.sets(peers, min_size=8, max_size=40), count=st.integers(1, 3))
def test_neighbours_are_the_next_ones_before_and_after_on_each_ring(members, count):
    rings = placed(sorted(members))
    if len(members) > 2 * count + 1:
        for peer in members:
            around = rings.around(peer, count, everybody)
            assert around == by_hand(rings, peer, members, count)
            assert len(around) <= 2 * count


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_as_few_as_the_degree_reaches_are_all_neighbours(count):
    members = {str(n) for n in range(2 * count + 1)}
    rings = placed(sorted(members | {"gone", "away"}), count=count)
    for peer in members:
        assert rings.around(peer, count, members.__contains__) == members - {peer}


@pytest.mark.parametrize("members", [set(), {"a"}])
def test_nobody_and_a_loner_have_no_neighbours(members):
    rings = placed(["a", "b", "c"])
    assert rings.around("a", 3, members.__contains__) == frozenset()
    assert placed([]).order(everybody) == []


def test_members_around_the_end_of_a_ring_are_neighbours_too():
    rings = placed([str(n) for n in range(30)], count=1)
    order = rings.order(everybody)
    assert rings.around(order[0], 1, everybody) == {order[-1], order[1]}
    assert rings.around(order[-1], 1, everybody) == {order[-2], order[0]}
    members = set(order[5:-5])
    assert rings.around(order[5], 1, members.__contains__) == {order[-6], order[6]}


def test_fewer_rings_may_be_asked_than_there_are():
    rings = placed([str(n) for n in range(50)], count=4)
    for number in range(50):
        one = rings.around(str(number), 1, everybody)
        assert len(one) == 2
        assert one <= rings.around(str(number), 4, everybody)


def test_rings_and_networks_differ_in_their_order():
    names = [str(n) for n in range(50)]
    rings = placed(names)
    orders = [[peer for _, peer in ring] for ring in rings._rings]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert placed(names, network="m" * 52).order(everybody) != rings.order(everybody)
    assert rings.order(everybody) == orders[0]


def test_the_order_of_a_network_never_changes():
    """Peers of different versions compute it: a change parts a running network."""
    assert placed("abcdefgh").order(everybody) == list("baedchfg")


def test_adding_and_discarding_touch_nobody_else():
    rings = placed([str(n) for n in range(40)])
    before = [list(ring) for ring in rings._rings]
    rings.add("new")
    rings.add("new")
    assert [len(ring) for ring in rings._rings] == [41] * 3
    rings.discard("new")
    rings.discard("stranger")
    assert rings._rings == before


@given(
    names=st.sets(peers, min_size=1, max_size=12),
    steps=st.lists(st.tuples(st.integers(0, 2), st.booleans(), peers), max_size=15),
)
def test_forks_share_an_order_and_change_their_own(names, steps):
    original = placed(sorted(names))
    first = original.fork()
    sides = [original, first, first.fork()]
    plain = [placed(sorted(names)) for _ in sides]
    assert all(len(side._rings) == 3 for side in sides)
    for which, comes, peer in steps:
        for rings in (sides[which], plain[which]):
            (rings.add if comes else rings.discard)(peer)
        assert [side._rings for side in sides] == [rings._rings for rings in plain]


def test_a_fork_costs_nothing_until_one_side_changes():
    original = placed([str(n) for n in range(10)])
    twin = original.fork()
    assert twin._rings is original._rings
    original.add("3")  # known: no change
    twin.discard("stranger")
    assert twin._rings is original._rings
    twin.add("new")
    assert twin._rings is not original._rings
    assert "new" not in original.order(everybody)
