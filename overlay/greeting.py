"""The first words on a control link: who we are, and whether we want a link at all.

Pure: messages in, messages or refusals out. A peer without a network takes over the one of whoever
welcomes it; peers of different networks never link.
"""

from __future__ import annotations

from overlay.certificates import read_chain
from overlay.codec import WireError
from overlay.identity import short
from overlay.machine import OverlayMachine
from overlay.membership import Membership
from overlay.notary import Forged, Notary
from overlay.records import Record
from overlay.revocation import Revocation
from overlay.transport import HandshakeFailed
from overlay.wire import CONTROL, PROTOCOL_VERSION, Hello, Refuse, Welcome


class Declined(Exception):
    """The other side answered and wants no link; `answer` is its Refuse."""

    def __init__(self, answer: Refuse) -> None:
        super().__init__(answer.reason)
        self.answer = answer


def make_hello(
    machine: OverlayMachine, *, instance: bytes, link_id: bytes, adopting: bool, now: float
) -> Hello:
    """The dialling side's first message; `adopting`: ready to take over the other's network."""
    table = machine.table
    return Hello(
        PROTOCOL_VERSION,
        "" if adopting else machine.network_id,
        table.me,
        instance,
        link_id,
        table.digest,
        None if machine.network_id else machine.candidacy(now),
    )


def read_answer(data: bytes, machine: OverlayMachine) -> Welcome:
    """The accepting side's welcome. Raises Declined, or HandshakeFailed for nonsense."""
    try:
        answer = CONTROL.decode(data)
    except WireError as error:
        raise HandshakeFailed(str(error)) from None
    if isinstance(answer, Refuse):
        raise Declined(answer)
    if not isinstance(answer, Welcome):
        raise HandshakeFailed("answered out of turn")
    if answer.record.peer_id == machine.table.my_id:
        raise HandshakeFailed("answered under this peer's own id")
    return answer


def check_author(record: Record, proven: str, notary: Notary) -> Refuse | None:
    """What keeps the author of a greeting from being believed, or None; `proven` is the id that the
    line proved ('' in a network of plain links). Raises HandshakeFailed for another's record."""
    if proven and record.peer_id != proven:
        raise HandshakeFailed(f"{short(proven)} speaks in the name of {short(record.peer_id)}")
    try:
        if notary.knows(record):
            return None
    except Forged as error:
        raise HandshakeFailed(str(error)) from None
    return Refuse("expired", "the certificate is not valid now: compare clocks, or enrol again")


def refusal(hello: Hello, machine: OverlayMachine, now: float) -> Refuse | None:
    """Why there shall be no link with whoever says `hello`, or None."""
    mine = machine.network_id
    if hello.version != PROTOCOL_VERSION:
        return Refuse("version", f"this peer speaks protocol version {PROTOCOL_VERSION}")
    if hello.record.peer_id == machine.table.my_id:
        return Refuse("self", "this is your own address")
    if not mine:
        reason = "this peer has no network yet: it is still joining one"
        return Refuse("homeless", reason, machine.candidacy(now))
    if hello.network not in ("", mine):
        return Refuse("network", other_network(mine, hello.network))
    if (out := what_keeps_out(hello.record, machine.table)) is not None:
        reason = f"this peer was revoked: {out.reason or 'no reason was given'}"
        return Refuse("revoked", reason, revocation=out)
    if not machine.admits(hello.record.peer_id):
        return Refuse("busy", "this peer has as many newcomers as it takes at a time; try again")
    return None


def what_keeps_out(record: Record, table: Membership) -> Revocation | None:
    """The revocation that bars the author of a record for good, or None."""
    revocations = table.revocations
    if not revocations or not record.chain:
        return revocations.by_peer.get(record.peer_id)
    known = table.get(record.peer_id) is not None
    return revocations.against(read_chain(record.chain), known=known)


def other_network(theirs: str, mine: str) -> str:
    """The words for two peers of different networks, as `mine` hears them."""
    return (
        f"that peer belongs to network {short(theirs)}, this one to {short(mine)}; to change"
        " networks start with another --data-dir"
    )
