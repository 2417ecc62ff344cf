"""Frames on the socketpair between the daemon and its learner.

A frame is a 12-byte prefix (header length as uint32, payload length as uint64, big-endian), the
msgpack header, and the payload as raw bytes. Payloads are read straight into one buffer, so a
tensor crosses with a single copy a side. This module holds the arithmetic and the learner's
blocking end; the daemon's end awaits the same frames on Trio.
"""

from __future__ import annotations

import socket
import struct

from learner.messages import Message, decode, encode

PREFIX = struct.Struct("!IQ")
# A header names weights of at most some thousand neighbours; the payload bound only catches a
# desynchronised stream (64 GiB is beyond any model one machine trains here).
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 36

Payload = bytes | bytearray | memoryview


class ChannelClosed(EOFError):
    """The other end is gone."""


def frame_head(message: Message, payload_bytes: int) -> bytes:
    """Everything of a frame but its payload."""
    header = encode(message)
    return PREFIX.pack(len(header), payload_bytes) + header


def parse_prefix(data: bytes) -> tuple[int, int]:
    """(header length, payload length). Raises ValueError beyond the limits."""
    header, payload = PREFIX.unpack(data)
    if header > MAX_HEADER_BYTES or payload > MAX_PAYLOAD_BYTES:
        raise ValueError(f"learner frame out of bounds: header {header}, payload {payload}")
    return header, payload


def send(sock: socket.socket, message: Message, payload: Payload = b"") -> None:
    """Send one frame. Raises ChannelClosed if the other end is gone."""
    view = memoryview(payload).cast("B") if len(payload) else memoryview(b"")
    try:
        sock.sendall(frame_head(message, view.nbytes))
        sock.sendall(view)
    except (BrokenPipeError, ConnectionResetError):
        raise ChannelClosed from None


def receive(sock: socket.socket) -> tuple[Message, bytearray]:
    """Receive one frame. Raises ChannelClosed at the end, ValueError for garbage."""
    header_bytes, payload_bytes = parse_prefix(bytes(_exactly(sock, PREFIX.size)))
    message = decode(bytes(_exactly(sock, header_bytes)))
    return message, _exactly(sock, payload_bytes)


def _exactly(sock: socket.socket, count: int) -> bytearray:
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        try:
            got = sock.recv_into(view)
        except ConnectionResetError:
            got = 0
        if got == 0:
            raise ChannelClosed
        view = view[got:]
    return buffer
