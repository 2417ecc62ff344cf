"""Simulated lines, kernels and accidents: what arrives, when, in which order, and what is heard."""

import pytest

from overlay.effects import CloseLink, DialFailed, LinkDown, LinkUp, Received
from overlay.profile import PROFILES
from overlay.simulator.lines import Lines, parse_latency
from overlay.simulator.network import SimulatedNetwork
from overlay.wire import Heartbeat

LAN = PROFILES["lan"]


class Line(SimulatedNetwork):
    """Two or more settled peers; what their machines are given is written down."""

    def __init__(self, member, *, count=2, seed=0, latency="lan", loss=0.0):
        super().__init__(
            seed=seed,
            profile=LAN,
            lines=Lines(parse_latency(latency), loss),
            network_id=member("network").peer_id,
        )
        self.events = []
        self.settle([member(number) for number in range(count)])
        self.run_for(4 * LAN.heartbeat_s)
        assert all(len(peer.connections) == count - 1 for peer in self.peers.values())
        self.events.clear()

    def _handle(self, peer, event):
        self.events.append((self.now, peer.number, event))
        super()._handle(peer, event)

    def say(self, sender, receiver, word):
        """Send a heartbeat that bears a number in the place of a digest."""
        self._send(self.peers[sender], self.peers[receiver].id, Heartbeat(word))

    def words(self, receiver, *, sender=None):
        """The numbers that were heard, in order, and when."""
        source = None if sender is None else self.peers[sender].id
        return [
            (at, event.message.digest)
            for at, number, event in self.events
            if number == receiver and isinstance(event, Received) and source in (None, event.peer)
            if isinstance(event.message, Heartbeat) and event.message.digest < 1000
        ]

    def of(self, kind, number):
        """The events of one kind that a peer's machine was given, with their times."""
        return [(at, e) for at, n, e in self.events if n == number and isinstance(e, kind)]

    def __repr__(self):
        return f"Line(seed={self.seed}, now={self.now}, {len(self.events)} events)"


@pytest.fixture
def line(member):
    """line(count=…, seed=…, latency=…, loss=…): a settled network that takes notes."""

    def make(**options):
        return Line(member, **options)

    return make


def numbers(words):
    return [word for _, word in words]


# Order and time.


@pytest.mark.parametrize("seed", range(5))
def test_a_link_keeps_the_order_whatever_latency_and_loss(line, seed):
    net = line(seed=seed, latency="lognormal:0.02,1", loss=0.1)
    for word in range(60):
        net.say(0, 1, word)
        net.run_for(0.01)
    net.run_for(5.0)
    assert numbers(net.words(1)) == list(range(60)), net


def test_a_constant_latency_is_what_a_message_takes(line):
    net = line(latency="constant:0.25")
    net.say(0, 1, 7)
    sent_at = net.now
    net.run_for(0.5)
    ((at, word),) = net.words(1)
    assert word == 7
    assert at - sent_at == pytest.approx(0.25)


def test_links_do_not_wait_for_each_other(line):
    net = line(count=3, seed=1, latency="uniform:0,1")
    for word in range(40):
        net.say(0, 1 + word % 2, word)
    net.run_for(3.0)
    assert numbers(net.words(1, sender=0)) == list(range(0, 40, 2))
    merged = [word for _, word in sorted(net.words(1, sender=0) + net.words(2, sender=0))]
    assert merged != sorted(merged), net


def test_the_directions_of_a_link_do_not_wait_for_each_other(line):
    net = line(latency="constant:0.1")
    net.peers[0].connections[net.peers[1].id].busy_until[:] = [net.now + 5, net.now + 5]
    direction = net.peers[1].id == net.peers[1].connections[net.peers[0].id].dialler
    net.peers[0].connections[net.peers[1].id].busy_until[direction] = 0.0
    net.say(1, 0, 1)
    net.say(0, 1, 2)
    net.run_for(1.0)
    assert numbers(net.words(0)) == [1]
    assert numbers(net.words(1)) == []


def test_one_seed_is_one_history_and_another_is_another(line):
    def history(seed):
        net = line(count=5, seed=seed, loss=0.05)
        net.kill(3)
        net.run_for(5.0)
        return net.events

    assert history(1) == history(1)
    assert history(1) != history(2)


# Cuts.


@pytest.mark.parametrize("cut_s", [0.1, 0.5, 0.9])
def test_what_a_cut_line_held_comes_in_order_after_the_cut(line, cut_s):
    net = line(seed=2)
    net.partition([0], [1])
    for word in range(10):
        net.say(0, 1, word)
    net.run_for(cut_s)
    assert net.words(1) == []
    healed_at = net.now
    net.heal()
    for word in range(10, 15):
        net.say(0, 1, word)
    net.run_for(3.0)
    assert numbers(net.words(1)) == list(range(15)), net
    assert net.words(1)[0][0] > healed_at


def test_what_was_under_way_when_the_line_was_cut_stays_ahead_of_what_was_said_later(line):
    net = line(latency="constant:0.1")
    net.say(0, 1, 0)
    net.run_for(0.05)
    net.partition([0], [1])
    net.say(0, 1, 1)
    net.run_for(0.3)
    net.heal()
    net.run_for(2.0)
    assert numbers(net.words(1)) == [0, 1], net


def test_a_second_cut_does_not_change_the_order_of_what_the_first_one_held(line):
    net = line(latency="constant:0.1")
    net.partition([0], [1])
    net.say(0, 1, 0)
    net.run_for(0.3)
    net.heal()
    net.run_for(0.05)  # TCP has not repeated it yet
    net.partition([0], [1])
    net.say(0, 1, 1)
    net.run_for(0.6)
    net.heal()
    net.run_for(2.0)
    assert numbers(net.words(1)) == [0, 1], net


def test_only_the_lines_between_the_groups_are_cut(line):
    net = line(count=4)
    net.partition([0, 1], [2, 3])
    for sender, receiver, word in [(0, 1, 0), (0, 2, 1), (3, 2, 2), (3, 1, 3)]:
        net.say(sender, receiver, word)
    net.run_for(0.5)
    assert numbers(net.words(1)) == [0]
    assert numbers(net.words(2)) == [2]


def test_those_who_are_cut_off_reach_nobody_not_even_each_other(line):
    net = line(count=4)
    net.cut_off(0, 1)
    assert net.cut_ids() == {net.peers[0].id, net.peers[1].id}
    for sender, receiver, word in [(0, 1, 0), (0, 2, 1), (3, 1, 2), (3, 2, 3)]:
        net.say(sender, receiver, word)
    net.run_for(0.5)
    assert numbers(net.words(1)) == []
    assert numbers(net.words(2)) == [3]
    net.restore(0)
    assert net.cut_ids() == {net.peers[1].id}
    net.run_for(1.0)
    assert numbers(net.words(2)) == [3, 1]
    assert numbers(net.words(1)) == []


def test_a_reset_is_not_heard_over_a_cut(line):
    net = line(count=3)
    net.partition([0], [1, 2])
    net.kill(0)
    net.heal()  # at once: the reset is under way, and gets through
    net.run_for(0.1)
    assert net.of(LinkDown, 1)

    net = line(count=3)
    net.partition([0], [1, 2])
    net.kill(0)
    net.run_for(1.0)
    net.heal()
    net.run_for(0.5)
    assert not net.of(LinkDown, 1)
    net.run_for(LAN.silence_longest_s)
    assert net.peers[0].id not in net.peers[1].machine.links  # silence is found all the same


def test_a_dial_over_a_cut_takes_its_whole_time_and_proves_no_death(line):
    net = line(seed=3)
    net.partition([0], [1])
    net.run_for(30.0)
    failures = [(at, event) for number in (0, 1) for at, event in net.of(DialFailed, number)]
    assert failures, net
    assert {event.outcome for _, event in failures} == {"unreachable"}


# Processes.


def test_a_kill_is_heard_after_what_was_said_before_it_and_dials_are_refused(line):
    net = line(latency="constant:0.1")
    net.say(0, 1, 1)
    net.kill(0)
    net.run_for(1.0)
    ((heard_at, _),) = net.words(1)
    ((down_at, down),) = net.of(LinkDown, 1)
    assert heard_at <= down_at
    assert not down.orderly
    failures = net.of(DialFailed, 1)
    assert failures[0][1].outcome == "refused"
    assert failures[0][0] - down_at == pytest.approx(0.2)


def test_a_leave_is_heard_in_good_order_after_the_goodbye(line):
    net = line(count=3)
    net.leave(0)
    net.run_for(0.5)
    (_, down), *more = net.of(LinkDown, 1)
    assert down.orderly
    assert not more
    assert net.peers[0].id not in {r.peer_id for r in net.peers[1].machine.table.live()}


def test_a_stopped_process_takes_in_all_that_waited_in_order_when_it_goes_on(line):
    net = line(seed=4)
    net.stop(1)
    for word in range(8):
        net.say(0, 1, word)
        net.run_for(0.1)
    assert net.words(1) == []
    net.resume(1)
    assert numbers(net.words(1)) == list(range(8)), net
    assert {at for at, _ in net.words(1)} == {net.now}


def test_a_stopped_process_keeps_its_links_and_does_nothing(line):
    net = line(count=3)
    net.stop(1)
    before = len(net.events)
    net.run_for(1.0)
    assert not [e for _, n, e in net.events[before:] if n == 1]
    assert not net.of(LinkDown, 0)
    assert net.peers[1] not in net.up()


def test_a_process_killed_while_it_is_stopped_takes_nothing_in_any_more(line):
    net = line()
    net.stop(1)
    net.say(0, 1, 1)
    net.run_for(0.5)
    net.kill(1)
    net.resume(1)
    net.run_for(0.5)
    assert net.words(1) == []


def test_resuming_who_is_not_stopped_changes_nothing(line):
    net = line()
    before = len(net.events)
    net.resume(0)
    assert len(net.events) == before


# Links.


def test_what_was_said_on_a_link_that_is_over_is_not_heard(line):
    net = line(latency="constant:0.1")
    net.say(0, 1, 1)
    del net.peers[1].connections[net.peers[0].id]
    net.run_for(0.15)
    assert net.words(1) == []


def test_a_closed_link_is_heard_by_the_other_side(line):
    net = line(count=3)
    net._perform(net.peers[0], [CloseLink(net.peers[1].id, "test")])
    net.run_for(0.1)
    ((_, down),) = net.of(LinkDown, 1)
    assert down == LinkDown(net.peers[0].id, orderly=True)


def test_a_settled_network_is_linked_and_stays_quiet(line):
    net = line(count=7)
    net.run_for(20.0)
    assert not [e for _, _, e in net.events if isinstance(e, (LinkUp, LinkDown, DialFailed))]
    for peer in net.peers.values():
        assert peer.machine.links == peer.machine.graph.wanted == peer.connections.keys()
        assert peer.machine.health == 0


def test_messages_and_their_bytes_are_counted(line):
    net = line()
    messages, size = net.messages, net.bytes
    net.run_for(10.0)
    assert net.messages - messages == pytest.approx(20, abs=2)
    assert (net.bytes - size) / (net.messages - messages) == pytest.approx(123, abs=4)
