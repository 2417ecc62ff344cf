"""How many bytes a message has on the wire, by arithmetic: encoding millions would take minutes."""

from __future__ import annotations

from collections.abc import Sequence

from overlay.records import SIGNATURE_BYTES, Fate, Record, Vote
from overlay.wire import CONTROL, Heartbeat, LinkMessage, News, Revoked, SyncPage, SyncRequest

# What a certificate and a signature of a real network measure (`certificates`, RFC 8032): simulated
# peers prove nothing, but what they say is as long.
CHAIN = (bytes(485),)
SIGNATURE = bytes(SIGNATURE_BYTES)

_HEARTBEAT_BASE = 4  # array, tag "hb"
_ID = 54  # a text of 52 letters


def message_bytes(message: LinkMessage) -> int:
    """Exactly what `CONTROL.encode` would give."""
    if type(message) is Heartbeat:
        return _HEARTBEAT_BASE + _integer(message.digest)
    if type(message) is News:
        return (
            6
            + sum(map(_array, (len(message.records), len(message.fates), len(message.evidence))))
            + sum(map(_record, message.records))
            + _fates(message.fates)
            + (2 + 2 * _ID) * len(message.evidence)
            + sum(_binary(evidence.signature) for evidence in message.evidence)
            + _integers([evidence.incarnation for evidence in message.evidence])
        )
    if type(message) is SyncPage:
        return (
            6
            + sum(map(_array, (len(message.records), len(message.fates))))
            + sum(map(_record, message.records))
            + _fates(message.fates)
        )
    if type(message) is Revoked:
        return len(CONTROL.encode(message))
    assert type(message) is SyncRequest
    return 7 + _array(len(message.digests)) + sum(map(_integer, message.digests))


def _fates(fates: Sequence[Fate]) -> int:
    states = sum(map(len, [fate.state for fate in fates]))
    votes = sum(_array(len(fate.votes)) + sum(map(_vote, fate.votes)) for fate in fates)
    incarnations = _integers([fate.incarnation for fate in fates])
    return (2 + _ID) * len(fates) + states + incarnations + votes


def _vote(vote: Vote) -> int:
    return 2 + _ID + _integer(vote.incarnation) + _binary(vote.signature)


def _binary(data: bytes) -> int:
    return len(data) + (2 if len(data) < 256 else 3)


def _record(record: Record) -> int:
    addresses = _array(len(record.addresses)) + sum(map(_text, record.addresses))
    numbers = _integer(record.incarnation) + _integer(record.part)
    proof = _array(len(record.chain)) + sum(map(_binary, record.chain)) + _binary(record.signature)
    return 2 + _ID + _text(record.name) + addresses + numbers + proof


def _array(length: int) -> int:
    return 1 if length < 16 else 3


def _text(text: str) -> int:
    size = len(text.encode())
    return size + (1 if size < 32 else 2 if size < 256 else 3)


def _integers(values: Sequence[int]) -> int:
    """Of many, most of them small."""
    if not values or max(values) < 128:
        return len(values)
    return sum(map(_integer, values))


def _integer(value: int) -> int:
    """−1 and what is not negative."""
    if value < 128:
        return 1
    if value < 256:
        return 2
    if value < 65536:
        return 3
    return 5 if value < 2**32 else 9
