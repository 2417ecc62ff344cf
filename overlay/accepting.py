"""Incoming connections: who may come in, and by which door.

Rules kept here:
- until a connection has said who it is it has little time, and one of few places (`admission`);
- without a certificate it reaches enrolment and nothing else;
- one catch boundary a connection: whatever it does costs that connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from overlay.admission import Admission, AdmissionSettings, Pending, remote_host
from overlay.codec import WireError
from overlay.effects import Event as MachineEvent
from overlay.effects import MetHomeless
from overlay.enrolment import Office, serve_enrolment
from overlay.greeting import check_author, refusal
from overlay.holding import LiveLinks
from overlay.identity import short
from overlay.link import Link
from overlay.machine import OverlayMachine
from overlay.notary import Notary
from overlay.transport import (
    HANDSHAKE_S,
    ConnectionLost,
    HandshakeFailed,
    Line,
    Network,
    WebSocket,
    open_server,
)
from overlay.wire import (
    CONTROL,
    CONTROL_PATH,
    DATA,
    DATA_PATH,
    ENROL_PATH,
    MAX_DATA_BYTES,
    DataHello,
    DataWelcome,
    Hello,
    Refuse,
    Welcome,
)

log = logging.getLogger("gossipd.overlay")

# Two links of one pair that begin within this time are a race, not a repair.
RACE_S = 2.0


class House(Protocol):
    """What the door opens to: the running overlay."""

    machine: OverlayMachine
    instance: bytes

    @property
    def is_adopting(self) -> bool:
        """Whether a dial is under way in which this peer would change networks."""

    def step(self, event: MachineEvent) -> None:
        """Give the machine an event."""

    def adopt(self, network_id: str) -> None:
        """Belong to another network."""


class Doorway:
    """Serves incoming connections."""

    def __init__(
        self,
        house: House,
        links: LiveLinks,
        network: Network,
        notary: Notary,
        office: Office | None,
    ) -> None:
        """`office`: makes members; None where there are no certificates."""
        self._house = house
        self._links = links
        self._network = network
        self._notary = notary
        self._office = office
        self._admission = Admission(AdmissionSettings())

    @property
    def pending(self) -> int:
        """How many connections have not said yet who they are."""
        return len(self._admission)

    async def accept(self, stream: trio.abc.Stream) -> None:
        """Serve one incoming connection to its end."""
        scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S)
        pending = self._admission.enter(remote_host(stream), scope.cancel)
        try:
            with scope:
                await self._serve(stream, scope, pending)
            if scope.cancelled_caught:
                log.info("incoming connection dropped: it did not say in time who it is")
        except (HandshakeFailed, ConnectionLost, WireError) as error:
            log.info("incoming connection dropped: %s", error)
        except Exception:
            log.exception("incoming connection dropped: a bug of ours")
        finally:
            self._admission.leave(pending)

    async def _serve(
        self, stream: trio.abc.Stream, scope: trio.CancelScope, pending: Pending
    ) -> None:
        def recognised() -> None:
            scope.deadline = float("inf")
            self._admission.leave(pending)

        line = await self._network.welcome(stream)
        async with open_server(
            line.stream, paths=self._open_to(line), max_message_bytes=MAX_DATA_BYTES
        ) as socket:
            if socket.path == ENROL_PATH:
                assert self._office is not None
                await serve_enrolment(socket, self._office, line)
                return
            first = await socket.receive()
            if socket.path == CONTROL_PATH:
                hello = CONTROL.decode(first)
                await self._accept_control(socket, hello, line.peer_id, recognised)
            else:
                hello = DATA.decode(first)
                await self._accept_data(socket, hello, line.peer_id, recognised)

    def _open_to(self, line: Line) -> tuple[str, ...]:
        """The paths that this line may ask for: without a certificate, enrolment alone."""
        known = line.peer_id or not self._network.secured
        links = (CONTROL_PATH, DATA_PATH) if known else ()
        return links if self._office is None else (*links, ENROL_PATH)

    async def _accept_control(
        self, socket: WebSocket, hello: object, proven: str, recognised: Callable[[], None]
    ) -> None:
        if not isinstance(hello, Hello):
            raise HandshakeFailed("spoke out of turn")
        machine = self._house.machine
        no = check_author(hello.record, proven, self._notary)
        if hello.network and machine.follows:
            self._house.adopt(hello.network)
        no = no or refusal(hello, machine, trio.current_time())
        if no is None and (wait_s := self._links.penalty_s(hello.record.peer_id)):
            no = Refuse("busy", f"you broke a limit of this peer and are refused for {wait_s} s")
        if hello.candidacy is not None and not machine.network_id:
            self._house.step(MetHomeless(hello.candidacy, ""))
        if (
            no is None
            and not hello.network
            and self._house.is_adopting
            and machine.table.my_id < hello.record.peer_id
        ):
            # Two that would both join the other: one of them has to stay what it is.
            no = Refuse("busy", "this peer is joining another itself; try again")
        if no is None and self._is_duplicate(hello.record.peer_id, hello.instance):
            no = Refuse("duplicate", "there is a link already")
        if no is not None:
            await socket.send(CONTROL.encode(no))
            await socket.close(no.kind)
            raise HandshakeFailed(f"refused {short(hello.record.peer_id)}: {no.reason}")
        welcome = Welcome(
            machine.network_id, machine.table.me, self._house.instance, machine.table.digest
        )
        await socket.send(CONTROL.encode(welcome))
        recognised()
        peer = hello.record.peer_id
        link = self._links.make(peer, hello.instance, hello.link_id, False, socket)
        await self._links.hold(link, hello.record, hello.digest)

    def _is_duplicate(self, peer: str, instance: bytes) -> bool:
        """Whether an incoming link loses against the one of the same pair that I dialled: when
        both sides dial at once, the lower id's dial counts."""
        link, i_am_preferred = self._links.by_peer.get(peer), self._house.machine.table.my_id < peer
        if link is None:
            return i_am_preferred and self._house.machine.has_just_dialled(
                peer, trio.current_time()
            )
        racing = trio.current_time() - link.since < RACE_S
        return i_am_preferred and link.dialled and link.instance == instance and racing

    async def _accept_data(
        self, socket: WebSocket, hello: object, proven: str, recognised: Callable[[], None]
    ) -> None:
        if not isinstance(hello, DataHello):
            raise HandshakeFailed("spoke out of turn")
        link = next((x for x in self._links.by_peer.values() if x.link_id == hello.link_id), None)
        if link is None or link.dialled or (proven and link.peer != proven):
            raise HandshakeFailed("a data link without its control link")
        await socket.send(DATA.encode(DataWelcome()))
        recognised()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_with, link, nursery.cancel_scope)
            await self._links.data.hold(link, socket)
            nursery.cancel_scope.cancel()


async def _end_with(link: Link, scope: trio.CancelScope) -> None:
    """An accepted data link ends with the control link it belongs to."""
    await link.ended.wait()
    scope.cancel()
