"""Work that is finished though whoever asked for it has gone.

A client that hangs up cancels its question; half a conversation with the learner would cost the
learner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from daemon.learner_process import LearnerDied, LearnerFailed

T = TypeVar("T")


async def to_the_end(nursery: trio.Nursery, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives, done in `nursery`. Raises its LearnerFailed or LearnerDied; LearnerDied
    too when the nursery ends before it."""
    send, receive = trio.open_memory_channel[Callable[[], T]](1)

    async def do() -> None:
        with send:  # also when the nursery ends: the asker must not wait for ever
            try:
                outcome = await work()
                send.send_nowait(lambda: outcome)
            except (LearnerFailed, LearnerDied) as error:
                problem = error

                def fail() -> T:
                    raise problem

                send.send_nowait(fail)

    nursery.start_soon(do)
    try:
        return (await receive.receive())()
    except trio.EndOfChannel:
        raise LearnerDied("training ended meanwhile") from None
