import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner import channel
from learner.messages import Mix, RunLocal, Snapshot


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)
    with left, right:
        yield left, right


@given(st.binary(max_size=3000), st.lists(st.floats(0, 1), max_size=20))
def test_a_frame_arrives_as_it_was_sent(payload, weights):
    message = Mix(3, 0.5, tuple(weights), True)
    left, right = socket.socketpair()
    with left, right:
        channel.send(left, message, payload)
        assert channel.receive(right) == (message, bytearray(payload))


def test_frames_keep_their_order_and_a_large_payload_arrives_whole(pair):
    left, right = pair
    payload = bytes(range(256)) * 8192

    def send():
        channel.send(left, RunLocal(1, True), memoryview(payload).cast("I"))
        channel.send(left, Snapshot())

    thread = threading.Thread(target=send)
    thread.start()
    first = channel.receive(right)
    second = channel.receive(right)
    thread.join(10)
    assert first == (RunLocal(1, True), bytearray(payload))
    assert second == (Snapshot(), bytearray())


def test_a_closed_end_is_channel_closed_on_both_sides(pair):
    left, right = pair
    left.close()
    with pytest.raises(channel.ChannelClosed):
        channel.receive(right)
    with pytest.raises(channel.ChannelClosed):
        channel.send(right, Snapshot())


def test_an_end_in_the_middle_of_a_frame_is_channel_closed(pair):
    left, right = pair
    left.sendall(channel.frame_head(Snapshot(), 100) + b"half")
    left.close()
    with pytest.raises(channel.ChannelClosed):
        channel.receive(right)


@pytest.mark.parametrize("lengths", [(channel.MAX_HEADER_BYTES + 1, 0), (1, 1 << 40)])
def test_a_length_beyond_the_limits_is_a_value_error(lengths):
    with pytest.raises(ValueError, match="out of bounds"):
        channel.parse_prefix(channel.PREFIX.pack(*lengths))
