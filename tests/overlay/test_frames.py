import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from overlay.frames import FRAMES_A_MESSAGE, MAX_IDLE_FRAMES, FrameCount

REQUEST = b"GET /control HTTP/1.1\r\nHost: x\r\n\r\n"
TEXT, BINARY, CONTINUATION, PING, PONG = (
    Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION, Opcode.PING, Opcode.PONG,
)  # fmt: skip


def frame(opcode, payload=b"", *, final=True, client=True):
    """One frame, made by the library that unpacks them."""
    return FrameProtocol(client=client, extensions=[])._serialize_frame(opcode, payload, final)


def counting():
    frames = FrameCount()
    assert frames.feed(REQUEST)
    return frames


@pytest.mark.parametrize(
    ("opcode", "final"), [(PING, True), (PONG, True), (CONTINUATION, False), (BINARY, False)]
)
@pytest.mark.parametrize("client", [True, False])
def test_frames_that_complete_no_message_are_bounded(opcode, final, client):
    frames = counting()
    idle = frame(opcode, b"x", final=final, client=client)
    assert all(frames.feed(idle) for _ in range(MAX_IDLE_FRAMES))
    assert not frames.feed(idle)


def test_a_message_makes_up_for_a_few():
    frames = counting()
    assert frames.feed(frame(PING) * MAX_IDLE_FRAMES)
    few = FRAMES_A_MESSAGE
    for _ in range(50):
        assert frames.feed(frame(BINARY, b"hello") + frame(PING) * few)
    fragments = frame(BINARY, b"a", final=False) + frame(CONTINUATION, b"", final=False) * (few - 1)
    for _ in range(50):
        assert frames.feed(frame(BINARY, b"z") + fragments)
    assert not frames.feed(frame(BINARY, b"z") + frame(PING) * (few + 1))


@given(
    payloads=st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536]), max_size=6),
    cuts=st.lists(st.integers(0, 140_000), max_size=12),
    blank=st.sampled_from([b"\r\n\r\n", b"\n\n", b"\n\r\n"]),
)
def test_wherever_the_stream_is_cut_the_count_is_the_same(payloads, cuts, blank):
    """What looks like pings within a message is its content."""
    messages = [frame(BINARY, b"\x89\x00" * (size // 2) + b"x" * (size % 2)) for size in payloads]
    stream = b"GET / HTTP/1.1" + blank + b"".join(messages) + frame(PING) * (MAX_IDLE_FRAMES + 1)
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    frames, seen = FrameCount(), []
    for begin, end in itertools.pairwise(edges):
        seen.append(frames.feed(bytearray(stream[begin:end])))
    assert seen[-1] is False
    assert frames._idle == MAX_IDLE_FRAMES + 1


def test_the_handshake_is_not_counted():
    frames = FrameCount()
    for byte in b"GET /x HTTP/1.1\r\n" + b"a: \x89\x00\r\n" * 200:
        assert frames.feed(bytes([byte]))
    assert frames.feed(b"\r\n" + frame(BINARY, b"x"))


def test_nonsense_is_skipped_like_anything_else():
    assert counting().feed(b"\xff" * 100_000)
