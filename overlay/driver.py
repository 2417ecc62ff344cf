"""The overlay on Trio: performs what the machine decides, carries the session's notes and blobs.

One task a connection, each with one catch boundary: whatever a peer does costs its connection.
The machine is called from these tasks and from one timer; its effects are performed at once and
never wait (a full outbox ends a link instead).
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from overlay.accepting import Doorway
from overlay.addresses import host_of, split_address
from overlay.credence import believed
from overlay.effects import (
    CloseLink,
    Dial,
    DialFailed,
    DialOutcome,
    Effect,
    Event,
    Found,
    Join,
    Leave,
    MetHomeless,
    Report,
    Send,
    Wake,
)
from overlay.enrolment import Office
from overlay.greeting import (
    Declined,
    check_author,
    make_hello,
    other_network,
    read_answer,
    what_keeps_out,
)
from overlay.holding import Listener, LiveLinks
from overlay.identity import is_id, new_id, short
from overlay.link import Link
from overlay.machine import OverlayMachine
from overlay.notary import Forged, Notary, Unsigned
from overlay.profile import Profile
from overlay.records import Member, Record
from overlay.revocation import Revocation
from overlay.topology import Choice
from overlay.traffic import Traffic
from overlay.transfer import FetchFailed
from overlay.transport import (
    ConnectionLost,
    DialRefused,
    HandshakeFailed,
    Network,
    WebSocket,
    open_client,
    open_unwrapping_nursery,
)
from overlay.wire import (
    CONTROL,
    CONTROL_PATH,
    MAX_CONTROL_BYTES,
    Note,
    Offer,
    Refuse,
    Revoked,
    Welcome,
)

log = logging.getLogger("gossipd.overlay")

# Two links of one pair that begin within this time are a race, not a repair.
RACE_S = 2.0
# A data link that is not there after so long is not waited for any longer.
DATA_LINK_S = 30.0


class JoinFailed(Exception):
    """A join came to nothing now; `kind` is refused, unreachable or declined."""

    def __init__(self, kind: DialOutcome, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Overlay:
    """A running overlay; made by `open_overlay`."""

    def __init__(
        self,
        machine: OverlayMachine,
        network: Network,
        profile: Profile,
        listener: Listener,
        nursery: trio.Nursery,
        may_adopt: Callable[[], bool],
        notary: Notary,
        office: Office | None,
    ) -> None:
        self.machine = machine
        self.instance = secrets.token_bytes(16)
        self.address = ""
        self._notary = notary
        self._network = network
        self._profile = profile
        self._listener = listener
        self._nursery = nursery
        self._may_adopt = may_adopt
        self._live = LiveLinks(
            machine, notary, listener, self.step, self._connect, profile.dial_timeout_s
        )
        self._door = Doorway(self, self._live, network, notary, office)
        self._adopting = 0  # dials under way in which this peer would change networks
        self._moved = trio.Event()
        self._joins: dict[str, list[trio.MemorySendChannel[JoinFailed | str]]] = {}

    # What the room above uses.

    @property
    def notary(self) -> Notary:
        """Signs for this peer, and says whose word others' is."""
        return self._notary

    @property
    def my_id(self) -> str:
        """This peer's id."""
        return self.machine.table.my_id

    @property
    def links(self) -> dict[str, Link]:
        """Live links by peer id; not to be changed."""
        return self._live.by_peer

    def send_note(self, peer: str, body: bytes) -> None:
        """Say something to a neighbour's session; nothing happens if the link is gone."""
        link = self._live.by_peer.get(peer)
        if link is not None:
            link.put(Note(body))

    async def fetch(
        self, peer: str, scope: str, stream: str, version: int, *, check: Callable[[Offer], None]
    ) -> tuple[Offer, bytearray]:
        """Pull a blob from a neighbour, once its data link is up. Raises FetchFailed."""
        link = self._live.by_peer.get(peer)
        if link is None:
            raise FetchFailed("there is no link to this peer")
        with trio.move_on_after(DATA_LINK_S):
            await link.data_ready.wait()
        if link.data is None:
            raise FetchFailed("the data link is down")
        return await link.data.fetch(scope, stream, version, check=check)

    async def join(self, address: str) -> str:
        """Link to whoever listens at `address`; its peer id. Raises JoinFailed; a peer that has no
        link at all keeps trying by itself."""
        split_address(address)
        send, receive = trio.open_memory_channel[JoinFailed | str](1)
        self._joins.setdefault(address, []).append(send)
        self.step(Join((address,)))
        answer = await receive.receive()
        if isinstance(answer, JoinFailed):
            raise answer
        return answer

    async def leave(self) -> None:
        """Tell everybody that this peer goes, and let the links drain."""
        self.step(Leave())
        with trio.move_on_after(self._profile.goodbye_s):
            links = list(self._live.by_peer.values())
            for link in links:
                link.close("leaving")
            for link in links:
                await link.ended.wait()

    def revoke(self, revocation: Revocation) -> None:
        """A member is out for good: drop its links, and tell everybody."""
        self.machine.revoke(revocation, trio.current_time())
        self.step(Wake())

    def set_topology(self, choice: Choice) -> None:
        """Use the job's mixing graph."""
        self._perform(self.machine.set_topology(choice, trio.current_time()))

    def describe_me(self, **changes: Any) -> None:
        """Change this peer's own record and tell everybody."""
        self._perform(self.machine.describe_me(trio.current_time(), **changes))

    def traffic(self) -> Traffic:
        """Bytes so far, websocket frames and handshakes included."""
        return self._live.meter.total()

    # The machine.

    def step(self, event: Event) -> None:
        """Give the machine an event and do what it decides."""
        self._perform(self.machine.handle(event, trio.current_time()))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    if (link := self._live.by_peer.get(effect.peer)) is not None:
                        link.put(effect.message)
                case Dial():
                    self._nursery.start_soon(self._dial, effect)
                case CloseLink():
                    if (link := self._live.by_peer.pop(effect.peer, None)) is not None:
                        link.close(effect.reason)
                case Found():
                    log.info("nobody here has a network: founding one")
                    self.adopt(new_id())
                case Report():
                    self._listener.report(effect.kind, effect.data)
        self._moved.set()

    @property
    def is_adopting(self) -> bool:
        """Whether a dial is under way in which this peer would change networks."""
        return self._adopting > 0

    async def accept(self, stream: trio.abc.Stream) -> None:
        """Serve one incoming connection to its end."""
        await self._door.accept(stream)

    async def watch_certificates(self) -> None:
        """End the links of those whose certificates run out."""
        await self._live.watch_certificates()

    async def run_timers(self) -> None:
        """Wake the machine when it wants to be woken."""
        while True:
            self._moved = trio.Event()
            with trio.move_on_at(self.machine.wake_at()) as scope:
                await self._moved.wait()
            if scope.cancelled_caught:
                self.step(Wake())

    # Dialling.

    async def _dial(self, dial: Dial) -> None:
        outcome: DialOutcome = "refused"
        reason = "has no address"
        for address in dial.addresses:
            try:
                self._check_penalty(dial.target)
                await self._dial_address(dial, address)
                return
            except DialRefused as error:
                reason = str(error)
            except Declined as error:
                outcome, reason = "declined", str(error)
                self._take_refusal(error.answer, dial.target)
                break
            except (OSError, ValueError, HandshakeFailed, ConnectionLost) as error:
                outcome, reason = "unreachable", str(error)
            except Exception:
                log.exception("dial of %s failed: a bug of ours", address)
                outcome, reason = "unreachable", "internal error"
        log.debug("dial of %s: %s: %s", short(dial.target), outcome, reason)
        self.step(DialFailed(dial.target, outcome, reason))
        self._answer_join(dial.target, JoinFailed(outcome, reason))

    async def _dial_address(self, dial: Dial, address: str) -> None:
        """Dial, greet, and hold the link until it ends. Raises why there was no link."""
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + dial.timeout_s
            async with self._connect(address, CONTROL_PATH, MAX_CONTROL_BYTES) as (socket, proven):
                if proven and is_id(dial.target) and proven != dial.target:
                    raise HandshakeFailed(f"{short(proven)} answers there, another peer")
                welcome, link_id = await self._greet(socket, proven)
                scope.deadline = float("inf")
                peer = welcome.record.peer_id
                self._check_penalty(peer)
                link = self._live.make(peer, welcome.instance, link_id, True, socket)
                self._answer_join(dial.target, peer)
                await self._live.hold(link, welcome.record, welcome.digest, dial.target, address)
        if scope.cancelled_caught:
            raise OSError(f"no answer from {address}")

    def _check_penalty(self, peer: str) -> None:
        """Raises Declined for a peer that broke a limit a short time ago."""
        if wait_s := self._live.penalty_s(peer):
            words = f"it broke a limit of this peer and is refused for {wait_s} s"
            raise Declined(Refuse("busy", words))

    @asynccontextmanager
    async def _connect(
        self, address: str, path: str, max_message_bytes: int
    ) -> AsyncIterator[tuple[WebSocket, str]]:
        """A websocket, and the id that the other end proved."""
        line = await self._network.connect(address)
        async with open_client(
            line.stream, host=host_of(address), path=path, max_message_bytes=max_message_bytes
        ) as socket:
            yield socket, line.peer_id

    def _take_refusal(self, answer: Refuse, target: str) -> None:
        if answer.candidacy is not None:
            self.step(MetHomeless(answer.candidacy, target))
        out = answer.revocation
        if out is not None and out.peer_id == self.my_id:
            with suppress(Forged):
                heard = believed(Revoked((out,)), self._notary, self.machine.table)
                if isinstance(heard, Revoked) and heard.revocations:
                    self.revoke(out)

    async def _greet(self, socket: WebSocket, proven: str) -> tuple[Welcome, bytes]:
        machine, link_id = self.machine, secrets.token_bytes(16)
        adopting = not machine.network_id or self._may_adopt()
        hello = make_hello(
            machine,
            instance=self.instance,
            link_id=link_id,
            adopting=adopting,
            now=trio.current_time(),
        )
        self._adopting += adopting
        try:
            await socket.send(CONTROL.encode(hello))
            answer = read_answer(await socket.receive(), machine)
        finally:
            self._adopting -= adopting
        if (no := check_author(answer.record, proven, self._notary)) is not None:
            raise Declined(no)
        if what_keeps_out(answer.record, machine.table) is not None:
            raise Declined(Refuse("revoked", "who answers there was revoked"))
        if adopting and (not machine.network_id or self._may_adopt()):
            self.adopt(answer.network)
        elif answer.network != machine.network_id:
            words = other_network(answer.network, machine.network_id)
            raise Declined(Refuse("network", words))
        return answer, link_id

    def adopt(self, network_id: str) -> None:
        """Belong to a network from now on."""
        self.machine.adopt_network(network_id)
        self._listener.network_adopted(network_id)

    def _answer_join(self, target: str, answer: JoinFailed | str) -> None:
        for waiter in self._joins.pop(target, []):
            waiter.send_nowait(answer)


@asynccontextmanager
async def open_overlay(
    me: Record,
    *,
    network_id: str,
    listen: str,
    advertise: tuple[str, ...],
    network: Network,
    profile: Profile,
    listener: Listener,
    may_adopt: Callable[[], bool],
    rng: random.Random,
    remembered: Iterable[Member] = (),
    revoked: Iterable[Revocation] = (),
    notary: Notary | None = None,
    office: Office | None = None,
) -> AsyncIterator[Overlay]:
    """Listen at `listen` (`host:port`) and take part until the block ends.

    `remembered` are the members of an earlier life and `revoked` those who are out, known before
    anybody can link; `notary` signs and checks (default: nobody does), `office` makes members;
    `may_adopt()` says whether this peer would give up its network for the one it dials (it knows
    nobody yet).
    Raises OSError when the address cannot be listened on.
    """
    now = trio.current_time()
    machine = OverlayMachine(
        me, network_id=network_id, profile=profile, rng=rng, now=now, notary=notary
    )
    machine.remember(remembered, now)
    for revocation in revoked:
        machine.revoke(revocation, now)
    async with open_unwrapping_nursery() as nursery:
        words = notary or Unsigned(me.peer_id)
        overlay = Overlay(machine, network, profile, listener, nursery, may_adopt, words, office)
        overlay.address = await nursery.start(network.listen, listen, overlay.accept)
        nursery.start_soon(overlay.watch_certificates)
        overlay.describe_me(addresses=advertise or (overlay.address,))
        nursery.start_soon(overlay.run_timers)
        yield overlay
        nursery.cancel_scope.cancel()
