"""What simulated lines carry from one end of a link to the other.

Rules kept here, which are TCP's:
- what is sent on a link arrives in the order of its sending, and the end of the link after it;
- what a cut line has to carry, or was carrying when it was cut, is held back, and repeated when the
  line works again;
- over a cut line nobody hears the end of a link, and nobody repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from overlay.effects import Event, LinkDown
from overlay.simulator.lines import Lines, next_retransmission_s
from overlay.simulator.process import Connection, Sending, SimulatedPeer
from overlay.simulator.timeline import Timeline
from overlay.wire import LinkMessage

Arrive = Callable[[Connection, SimulatedPeer, SimulatedPeer, LinkMessage], None]
Handle = Callable[[SimulatedPeer, Event], None]


class Wires:
    """All links of a network, seen from between their ends."""

    def __init__(
        self,
        timeline: Timeline,
        lines: Lines,
        rng: Random,
        *,
        is_cut: Callable[[str, str], bool],
        arrive: Arrive,
        handle: Handle,
    ) -> None:
        """`is_cut(one, other)`: whether the lines between two peers carry nothing now;
        `arrive(connection, sender, receiver, message)`: a message comes out at the other end;
        `handle(peer, event)`: a machine is told of a lost link."""
        self._timeline = timeline
        self._lines = lines
        self._rng = rng
        self._is_cut = is_cut
        self._arrive = arrive
        self._handle = handle
        self._sent = 0

    def send(
        self,
        connection: Connection,
        sender: SimulatedPeer,
        receiver: SimulatedPeer,
        message: LinkMessage,
    ) -> None:
        """A message goes in at one end."""
        self._sent += 1
        sending = Sending(self._sent, sender, receiver, message)
        if connection.held or self._is_cut(sender.id, receiver.id):
            self._hold(connection, sending)
        else:
            self._carry(connection, sending, self._lines.delay_s(self._rng))

    def hang_up(
        self, connection: Connection, gone: str, other: SimulatedPeer, *, orderly: bool
    ) -> None:
        """The link is over at the end of `gone`."""
        arrives = self._arrival(connection, gone, self._lines.delay_s(self._rng))
        delay_s = arrives - self._timeline.now
        self._timeline.later(delay_s, self._cross_end, connection, gone, other, orderly)

    def release(self, peers: Iterable[SimulatedPeer]) -> None:
        """Lines work again: TCP repeats what they held back, if both ends still believe."""
        for peer in peers:
            for other_id, connection in peer.connections.items():
                if connection.held and not self._is_cut(peer.id, other_id):
                    held, connection.held = connection.held, []
                    wait_s = next_retransmission_s(self._timeline.now - connection.held_since)
                    for sending in sorted(held, key=lambda sending: sending.order):
                        delay_s = wait_s + self._lines.delay_s(self._rng)
                        self._carry(connection, sending, delay_s)

    def _arrival(self, connection: Connection, sender: str, delay_s: float) -> float:
        """When what is sent now will be there: not before what was sent earlier."""
        direction = sender == connection.dialler
        return max(connection.busy_until[direction], self._timeline.now + delay_s)

    def _carry(self, connection: Connection, sending: Sending, delay_s: float) -> None:
        sender = sending.sender.id
        arrives = self._arrival(connection, sender, delay_s)
        connection.busy_until[sender == connection.dialler] = arrives
        self._timeline.later(arrives - self._timeline.now, self._cross, connection, sending)

    def _cross(self, connection: Connection, sending: Sending) -> None:
        _, sender, receiver, message = sending
        if self._is_cut(sender.id, receiver.id):
            self._hold(connection, sending)
        else:
            receiver.do(self._arrive, connection, sender, receiver, message)

    def _cross_end(
        self, connection: Connection, gone: str, other: SimulatedPeer, orderly: bool
    ) -> None:
        if not self._is_cut(other.id, gone):
            other.do(self._end, connection, gone, other, orderly)

    def _end(self, connection: Connection, gone: str, other: SimulatedPeer, orderly: bool) -> None:
        if other.connections.get(gone) is connection:
            del other.connections[gone]
            self._handle(other, LinkDown(gone, orderly))

    def _hold(self, connection: Connection, sending: Sending) -> None:
        if not connection.held:
            connection.held_since = self._timeline.now
        connection.held.append(sending)
