"""The live links: each is run to its end, and whatever the peer at the other end does costs that
link.

Rules kept here:
- what comes in is counted (`limits`), decoded and checked (`credence`) before the machine hears it;
- nonsense, forgery and floods end the link; the peer is told why and not linked again for a while
  (`penalties`);
- a member whose certificate runs out while it is linked loses its links.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Protocol

import trio

from overlay.codec import WireError
from overlay.credence import believed
from overlay.data_links import Connect, DataLinks
from overlay.effects import Event, LinkDown, LinkUp, Received
from overlay.identity import short
from overlay.limits import Limits, RateTable
from overlay.link import Link
from overlay.machine import OverlayMachine
from overlay.notary import Forged, Notary
from overlay.penalties import Penalties, PenaltySettings
from overlay.records import Record
from overlay.traffic import Meter
from overlay.transfer import Blob
from overlay.transport import ConnectionLost, WebSocket
from overlay.wire import CONTROL, Hello, Note, Refuse, Want, Welcome

log = logging.getLogger("gossipd.overlay")

CERTIFICATES_S = 30.0


class Listener(Protocol):
    """The room above: told what happens, asked for blobs. Only `provide` may wait."""

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """An event for people and scripts."""

    def note(self, peer: str, body: bytes) -> None:
        """A neighbour's session says something."""

    def linked(self, peer: str) -> None:
        """A control link to `peer` is up."""

    def network_adopted(self, network_id: str) -> None:
        """This peer now belongs to a network."""

    async def provide(self, peer: str, want: Want) -> Blob:
        """The blob a neighbour wants. Raises FetchFailed with the reason."""


class LiveLinks:
    """The links of one overlay, by peer id."""

    def __init__(
        self,
        machine: OverlayMachine,
        notary: Notary,
        listener: Listener,
        step: Callable[[Event], None],
        connect: Connect,
        dial_timeout_s: float,
    ) -> None:
        """`step` hands the machine an event; `connect` opens data links."""
        self.by_peer: dict[str, Link] = {}
        self.meter = Meter()
        self.data = DataLinks(connect, listener.provide, self._condemn, self.meter, dial_timeout_s)
        self._machine = machine
        self._notary = notary
        self._listener = listener
        self._step = step
        self._rates = RateTable(Limits())
        self._penalties = Penalties(PenaltySettings())

    def make(
        self, peer: str, instance: bytes, link_id: bytes, dialled: bool, socket: WebSocket
    ) -> Link:
        """A link that was greeted, to be held."""
        rates, now = self._rates.of(peer), trio.current_time()
        return Link(peer, instance, link_id, dialled, now, socket, rates)

    def penalty_s(self, peer: str) -> int:
        """For how long a peer that broke a limit is refused still; 0 for everybody else."""
        return math.ceil(self._penalties.remaining_s(peer, trio.current_time()))

    async def hold(
        self, link: Link, record: Record, digest: int, target: str = "", address: str = ""
    ) -> None:
        """Run a link to its end; never raises what the peer did. `target` and `address` are the
        dial's, empty for a link that the other side dialled."""
        peer = link.peer
        orderly = False
        if (older := self.by_peer.get(peer)) is not None:
            older.scope.cancel()
        self.by_peer[peer] = link
        self.meter.opened(link.socket, is_data=False)
        try:
            with link.scope:
                self._step(LinkUp(record, digest, target))
                self._listener.linked(peer)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.write)
                    if address and record.learner and self._machine.table.me.learner:
                        nursery.start_soon(self.data.keep, link, address)
                    orderly = await self._read(link)
                    nursery.cancel_scope.cancel()
        except Exception:
            log.exception("link to %s dropped: a bug of ours", short(peer))
        finally:
            self.meter.closed(link.socket)
            link.ended.set()
            if self.by_peer.get(peer) is link:
                del self.by_peer[peer]
                self._step(LinkDown(peer, orderly))

    async def watch_certificates(self) -> None:
        """End the links of those whose certificates run out, for ever."""
        while True:
            await trio.sleep(CERTIFICATES_S)
            for peer, link in list(self.by_peer.items()):
                record = self._machine.table.get(peer)
                if record is not None and self._notary.has_expired(record):
                    log.warning("link to %s ends: its certificate has expired", short(peer))
                    self._drop(link, "your certificate has expired")

    async def _read(self, link: Link) -> bool:
        """Take messages in until the link ends; whether it ended in good order."""
        while True:
            try:
                data = await link.socket.receive()
                if self.by_peer.get(link.peer) is link:
                    self._take(link, data)
                # Otherwise this link is closing: what it says is no longer heard.
            except ConnectionLost as error:
                log.debug("link to %s is over: %s", short(link.peer), error)
                return error.orderly
            except (WireError, Forged) as error:
                self._condemn(link, str(error))

    def _take(self, link: Link, data: bytes) -> None:
        """Take one message in. Raises WireError for nonsense, and for more than is allowed, and
        Forged."""
        message = CONTROL.decode(data)
        if isinstance(message, (Hello, Welcome, Refuse)):
            raise WireError("greeted twice")
        kind, now = type(message).__name__, trio.current_time()
        if excess := link.rates.excess(kind, len(data), now):
            raise WireError(excess)
        if isinstance(message, Note):
            self._listener.note(link.peer, message.body)
        else:
            heard = believed(message, self._notary, self._machine.table)
            self._step(Received(link.peer, heard))

    def _condemn(self, link: Link, reason: str) -> None:
        """A peer that sends what is no message of ours, or too many, loses the link, is told why,
        and is not linked again for a while."""
        if self.by_peer.get(link.peer) is not link:
            link.scope.cancel()
            return
        wait_s = self._penalties.punish(link.peer, trio.current_time())
        log.warning("link to %s dropped for %.0f s: %s", short(link.peer), wait_s, reason)
        self._listener.report("peer.misbehaved", {"peer": link.peer, "reason": reason})
        self._drop(link, reason)

    def _drop(self, link: Link, reason: str) -> None:
        del self.by_peer[link.peer]
        link.close(reason)
        self._step(LinkDown(link.peer, orderly=False))
