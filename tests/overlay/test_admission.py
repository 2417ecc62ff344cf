from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.admission import Admission, AdmissionSettings, address_group, remote_host


class House:
    """An admission, and who was shown the door, in order."""

    def __init__(self, total, per_address):
        self.admission = Admission(AdmissionSettings(total, per_address))
        self.closed = []
        self.places = {}

    def come(self, name, host):
        self.places[name] = self.admission.enter(host, lambda: self.closed.append(name))


@pytest.mark.parametrize(
    ("comers", "closed"),
    [
        (["a1", "b1", "c1", "d1"], []),
        (["a1", "b1", "c1", "d1", "e1"], ["a1"]),
        (["a1", "b1", "b2", "c1", "d1"], ["b1"]),
        (["a1", "a2", "a3"], ["a1"]),  # more than one address may have
        (["a1", "a2", "a3", "a4", "b1", "c1", "d1"], ["a1", "a2", "a3"]),
        (["b1", "b2", "a1", "a2", "a3"], ["a1"]),
        (["b1", "b2", "a1", "c1", "a2"], ["b1"]),
    ],
)
def test_the_oldest_of_the_address_that_holds_the_most_makes_room(comers, closed):
    house = House(total=4, per_address=2)
    for name in comers:
        house.come(name, f"10.0.0.{ord(name[0])}")
    assert house.closed == closed


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_loopback_and_what_has_no_address_may_have_every_place(host):
    house = House(total=4, per_address=2)
    for number in range(6):
        house.come(number, host)
    assert house.closed == [0, 1]
    assert len(house.admission) == 4


def test_a_slow_loris_locks_nobody_out():
    house = House(total=128, per_address=32)
    for number in range(1000):
        house.come(f"loris {number}", f"10.0.0.{number % 8}")
    for number in range(20):
        house.come(f"honest {number}", f"10.1.0.{number}")
        house.come(f"another loris {number}", "10.0.0.1")
    assert not [name for name in house.closed if name.startswith("honest")]
    assert len(house.admission) == 128


def test_a_place_is_given_back_once():
    house = House(total=2, per_address=2)
    house.come("a", "10.0.0.1")
    house.admission.leave(house.places["a"])
    house.admission.leave(house.places["a"])
    house.come("b", "10.0.0.1")
    house.come("c", "10.0.0.1")
    assert house.closed == []
    assert len(house.admission) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 50)), min_size=1, max_size=150
    )
)
def test_the_limits_hold_and_the_newcomer_is_always_in(visits):
    house, names = House(total=8, per_address=3), []
    for number, (address, leaves, who) in enumerate(visits):
        if leaves and names:
            house.admission.leave(house.places[names[who % len(names)]])
            continue
        house.come(number, f"10.0.0.{address}")
        names.append(number)
        assert number not in house.closed
        assert len(house.admission) <= 8
        inside = [p.address for p in house.admission._pending]
        assert all(inside.count(group) <= 3 for group in inside)
        assert house.admission._held == {group: inside.count(group) for group in inside}
    assert len(house.closed) == len(set(house.closed))


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:127.0.0.1", ""),
        ("127.5.5.5", ""),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::5", "2001:db8::/64"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a name", ""),
    ],
)
def test_what_counts_as_one_address(host, group):
    assert address_group(host) == group


def test_the_address_of_a_stream_is_found_under_tls_too():
    def gone():
        raise OSError("not connected")

    socket = SimpleNamespace(getpeername=lambda: ("10.0.0.1", 5))
    plain = SimpleNamespace(socket=socket)
    assert remote_host(plain) == "10.0.0.1"
    assert remote_host(SimpleNamespace(transport_stream=plain)) == "10.0.0.1"
    assert remote_host(SimpleNamespace(socket=SimpleNamespace(getpeername=gone))) == ""
    assert remote_host(SimpleNamespace(socket=SimpleNamespace(getpeername=lambda: "/x"))) == ""
    assert remote_host(object()) == ""
