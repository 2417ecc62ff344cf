"""Where the frames of a websocket begin and end, to bound those that no message comes of.

A fragment without content, a ping or a pong costs its sender six bytes, and whoever takes it in
twenty microseconds and, in the library that unpacks it, memory. They are counted before that
library sees them.

Rules kept here:
- what is counted is what completes no message: fragments but the last, and control frames. A
  message makes up for a few;
- what comes before the handshake's answer is no frame: the library throws it away;
- nothing is kept but a header that came in part; masks and contents are skipped unread;
- nonsense is for the library to find: it is skipped like anything else.

Source: RFC 6455, section 5.2 (base framing protocol) and 5.5 (control frames).
"""

from __future__ import annotations

import re

# A message of ours is one frame, and nobody pings: this is for implementations that do otherwise.
MAX_IDLE_FRAMES = 64
FRAMES_A_MESSAGE = 4

# As lenient as h11, which reads the handshake.
BLANK_LINE = re.compile(rb"\n\r?\n")
FINAL, OPCODE, MASKED, LENGTH = 0x80, 0x0F, 0x80, 0x7F
FIRST_CONTROL_OPCODE = 8
# Bytes of the length that follow the second byte, where that says so.
LONGER = {126: 2, 127: 8}


class FrameCount:
    """Reads along one direction of one connection: at the dialling end from the blank line that
    ends the handshake, at the accepting end from its own answer on (`begin`)."""

    def __init__(self) -> None:
        self._begun = False
        self._idle = 0  # frames that completed no message, less what messages made up for
        self._skip = 0
        self._head = b""

    def begin(self) -> None:
        """Whatever comes from now on is frames."""
        self._begun, self._skip, self._head = True, 0, b""

    def feed(self, data: bytes | bytearray) -> bool:
        """Read on; False when too many frames in a row complete no message."""
        if not self._begun:
            data = self._head + data
            blank = BLANK_LINE.search(data)
            self._begun, self._head = blank is not None, b"" if blank else bytes(data[-2:])
            return blank is None or self.feed(data[blank.end() :])
        frames, at = self._head + data[self._skip :], 0
        self._skip = max(0, self._skip - len(data))
        while (size := _frame_bytes(frames, at)) is not None:
            first = frames[at]
            completes = first & FINAL and first & OPCODE < FIRST_CONTROL_OPCODE
            self._idle = max(0, self._idle - FRAMES_A_MESSAGE) if completes else self._idle + 1
            if self._idle > MAX_IDLE_FRAMES:
                return False
            at += size
        if at > len(frames):
            self._skip, at = at - len(frames), len(frames)
        self._head = bytes(frames[at:])
        return True


def _frame_bytes(data: bytes | bytearray, at: int) -> int | None:
    """What the frame that begins at `at` measures, header included; None if its header is not
    there in whole."""
    if len(data) < at + 2:
        return None
    second = data[at + 1]
    length, header = second & LENGTH, 2 + (4 if second & MASKED else 0)
    if longer := LONGER.get(length, 0):
        if len(data) < at + 2 + longer:
            return None
        length = int.from_bytes(data[at + 2 : at + 2 + longer])
    return header + longer + length
