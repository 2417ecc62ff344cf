"""The overlay on Trio: performs what the machine decides, carries the session's notes and blobs.

One task a connection, each with one catch boundary: whatever a peer does costs its connection.
The machine is called from these tasks and from one timer; its effects are performed at once and
never wait (a full outbox ends a link instead).
"""

from __future__ import annotations

import logging
import math
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

from overlay.admission import Admission, AdmissionSettings, Pending, remote_host
from overlay.codec import WireError
from overlay.credence import believed
from overlay.data_links import DataLinks
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
    LinkDown,
    LinkUp,
    MetHomeless,
    Received,
    Report,
    Send,
    Wake,
)
from overlay.enrolment import Office, serve_enrolment
from overlay.greeting import (
    Declined,
    check_author,
    make_hello,
    other_network,
    read_answer,
    refusal,
)
from overlay.identity import is_id, new_id, short
from overlay.limits import Limits, RateTable
from overlay.link import Link
from overlay.machine import OverlayMachine
from overlay.notary import Forged, Notary, Unsigned
from overlay.penalties import Penalties, PenaltySettings
from overlay.profile import Profile
from overlay.records import Member, Record
from overlay.revocation import Revocation
from overlay.topology import Choice
from overlay.traffic import Meter, Traffic
from overlay.transfer import Blob, FetchFailed
from overlay.transport import (
    HANDSHAKE_S,
    ConnectionLost,
    DialRefused,
    HandshakeFailed,
    Line,
    Network,
    WebSocket,
    host_of,
    open_client,
    open_server,
    open_unwrapping_nursery,
    split_address,
)
from overlay.wire import (
    CONTROL,
    CONTROL_PATH,
    DATA,
    DATA_PATH,
    ENROL_PATH,
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    DataHello,
    DataWelcome,
    Hello,
    Note,
    Offer,
    Refuse,
    Want,
    Welcome,
)

log = logging.getLogger("gossipd.overlay")

# Two links of one pair that begin within this time are a race, not a repair.
RACE_S = 2.0
# A data link that is not there after so long is not waited for any longer.
DATA_LINK_S = 30.0


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
        self._notary = notary
        self._office = office
        self.address = ""
        self._network = network
        self._profile = profile
        self._listener = listener
        self._nursery = nursery
        self._may_adopt = may_adopt
        self._links: dict[str, Link] = {}
        self._meter = Meter()
        self._data = DataLinks(
            self._connect, listener.provide, self._condemn, self._meter, profile.dial_timeout_s
        )
        self._instance = secrets.token_bytes(16)
        self._admission = Admission(AdmissionSettings())
        self._rates = RateTable(Limits())
        self._penalties = Penalties(PenaltySettings())
        self._adopting = 0  # dials under way in which this peer would change networks
        self._moved = trio.Event()
        self._joins: dict[str, list[trio.MemorySendChannel[JoinFailed | str]]] = {}

    # What the room above uses.

    @property
    def my_id(self) -> str:
        """This peer's id."""
        return self.machine.table.my_id

    @property
    def links(self) -> dict[str, Link]:
        """Live links by peer id; not to be changed."""
        return self._links

    def send_note(self, peer: str, body: bytes) -> None:
        """Say something to a neighbour's session; nothing happens if the link is gone."""
        link = self._links.get(peer)
        if link is not None:
            link.put(Note(body))

    async def fetch(
        self, peer: str, scope: str, stream: str, version: int, *, check: Callable[[Offer], None]
    ) -> tuple[Offer, bytearray]:
        """Pull a blob from a neighbour, once its data link is up. Raises FetchFailed."""
        link = self._links.get(peer)
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
            links = list(self._links.values())
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
        return self._meter.total()

    # The machine.

    def step(self, event: Event) -> None:
        """Give the machine an event and do what it decides."""
        self._perform(self.machine.handle(event, trio.current_time()))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    if (link := self._links.get(effect.peer)) is not None:
                        link.put(effect.message)
                case Dial():
                    self._nursery.start_soon(self._dial, effect)
                case CloseLink():
                    if (link := self._links.pop(effect.peer, None)) is not None:
                        link.close(effect.reason)
                case Found():
                    log.info("nobody here has a network: founding one")
                    self._adopt(new_id())
                case Report():
                    self._listener.report(effect.kind, effect.data)
        self._moved.set()

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
                self._check_welcome(dial.target)
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
                self._check_welcome(peer)
                link = self._make_link(peer, welcome.instance, link_id, True, socket)
                self._answer_join(dial.target, peer)
                await self._hold(link, welcome.record, welcome.digest, dial.target, address)
        if scope.cancelled_caught:
            raise OSError(f"no answer from {address}")

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
            mine = self.machine.table.me
            if out.peer_id not in self.machine.table.revocations and self._notary.may_revoke(
                out, mine
            ):
                self.revoke(out)

    async def _greet(self, socket: WebSocket, proven: str) -> tuple[Welcome, bytes]:
        machine, link_id = self.machine, secrets.token_bytes(16)
        adopting = not machine.network_id or self._may_adopt()
        hello = make_hello(
            machine,
            instance=self._instance,
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
        if adopting and (not machine.network_id or self._may_adopt()):
            self._adopt(answer.network)
        elif answer.network != machine.network_id:
            words = other_network(answer.network, machine.network_id)
            raise Declined(Refuse("network", words))
        return answer, link_id

    def _adopt(self, network_id: str) -> None:
        self.machine.adopt_network(network_id)
        self._listener.network_adopted(network_id)

    def _answer_join(self, target: str, answer: JoinFailed | str) -> None:
        for waiter in self._joins.pop(target, []):
            waiter.send_nowait(answer)

    # Accepting.

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
        no = check_author(hello.record, proven, self._notary)
        if hello.network and self.machine.follows:
            self._adopt(hello.network)
        no = no or refusal(hello, self.machine, trio.current_time())
        if no is None and (wait_s := self._penalty_s(hello.record.peer_id)):
            no = Refuse("busy", f"you broke a limit of this peer and are refused for {wait_s} s")
        if hello.candidacy is not None and not self.machine.network_id:
            self.step(MetHomeless(hello.candidacy, ""))
        if (
            no is None
            and not hello.network
            and self._adopting
            and self.my_id < hello.record.peer_id
        ):
            # Two that would both join the other: one of them has to stay what it is.
            no = Refuse("busy", "this peer is joining another itself; try again")
        if no is None and self._is_duplicate(hello.record.peer_id, hello.instance):
            no = Refuse("duplicate", "there is a link already")
        if no is not None:
            await socket.send(CONTROL.encode(no))
            await socket.close(no.kind)
            raise HandshakeFailed(f"refused {short(hello.record.peer_id)}: {no.reason}")
        machine = self.machine
        welcome = Welcome(
            machine.network_id, machine.table.me, self._instance, machine.table.digest
        )
        await socket.send(CONTROL.encode(welcome))
        recognised()
        peer = hello.record.peer_id
        link = self._make_link(peer, hello.instance, hello.link_id, False, socket)
        await self._hold(link, hello.record, hello.digest, "", "")

    def _is_duplicate(self, peer: str, instance: bytes) -> bool:
        """Whether an incoming link loses against the one of the same pair that I dialled: when
        both sides dial at once, the lower id's dial counts."""
        link, i_am_preferred = self._links.get(peer), self.my_id < peer
        if link is None:
            return i_am_preferred and self.machine.has_just_dialled(peer, trio.current_time())
        racing = trio.current_time() - link.since < RACE_S
        return i_am_preferred and link.dialled and link.instance == instance and racing

    async def _accept_data(
        self, socket: WebSocket, hello: object, proven: str, recognised: Callable[[], None]
    ) -> None:
        if not isinstance(hello, DataHello):
            raise HandshakeFailed("spoke out of turn")
        link = next((x for x in self._links.values() if x.link_id == hello.link_id), None)
        if link is None or link.dialled or (proven and link.peer != proven):
            raise HandshakeFailed("a data link without its control link")
        await socket.send(DATA.encode(DataWelcome()))
        recognised()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_with, link, nursery.cancel_scope)
            await self._data.hold(link, socket)
            nursery.cancel_scope.cancel()

    # Holding.

    def _make_link(
        self, peer: str, instance: bytes, link_id: bytes, dialled: bool, socket: WebSocket
    ) -> Link:
        rates, now = self._rates.of(peer), trio.current_time()
        return Link(peer, instance, link_id, dialled, now, socket, rates)

    async def _hold(
        self, link: Link, record: Record, digest: int, target: str, address: str
    ) -> None:
        """Run a link to its end; never raises what the peer did."""
        peer = link.peer
        orderly = False
        if (older := self._links.get(peer)) is not None:
            older.scope.cancel()
        self._links[peer] = link
        self._meter.opened(link.socket, is_data=False)
        try:
            with link.scope:
                self.step(LinkUp(record, digest, target))
                self._listener.linked(peer)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.write)
                    if address and record.learner and self.machine.table.me.learner:
                        nursery.start_soon(self._data.keep, link, address)
                    orderly = await self._read(link)
                    nursery.cancel_scope.cancel()
        except Exception:
            log.exception("link to %s dropped: a bug of ours", short(peer))
        finally:
            self._meter.closed(link.socket)
            link.ended.set()
            if self._links.get(peer) is link:
                del self._links[peer]
                self.step(LinkDown(peer, orderly))

    async def _read(self, link: Link) -> bool:
        """Take messages in until the link ends; whether it ended in good order."""
        while True:
            try:
                data = await link.socket.receive()
                if self._links.get(link.peer) is link:
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
            heard = believed(message, self._notary, self.machine.table)
            self.step(Received(link.peer, heard))

    def _condemn(self, link: Link, reason: str) -> None:
        """A peer that sends what is no message of ours, or too many, loses the link, is told why,
        and is not linked again for a while."""
        if self._links.get(link.peer) is not link:
            link.scope.cancel()
            return
        wait_s = self._penalties.punish(link.peer, trio.current_time())
        log.warning("link to %s dropped for %.0f s: %s", short(link.peer), wait_s, reason)
        self._listener.report("peer.misbehaved", {"peer": link.peer, "reason": reason})
        del self._links[link.peer]
        link.close(reason)
        self.step(LinkDown(link.peer, orderly=False))

    def _check_welcome(self, peer: str) -> None:
        """Raises Declined for a peer that broke a limit a short time ago."""
        if wait_s := self._penalty_s(peer):
            words = f"it broke a limit of this peer and is refused for {wait_s} s"
            raise Declined(Refuse("busy", words))

    def _penalty_s(self, peer: str) -> int:
        return math.ceil(self._penalties.remaining_s(peer, trio.current_time()))


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
    `may_adopt()`
    says whether this peer would give up its network for the one it dials (it knows nobody yet).
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
        overlay.describe_me(addresses=advertise or (overlay.address,))
        nursery.start_soon(overlay.run_timers)
        yield overlay
        nursery.cancel_scope.cancel()


async def _end_with(link: Link, scope: trio.CancelScope) -> None:
    """An accepted data link ends with the control link it belongs to."""
    await link.ended.wait()
    scope.cancel()
