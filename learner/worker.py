"""The learner process: `python -m learner.worker --fd N`, started by the daemon.

Rules kept here:
- plain and blocking: receive a command on the inherited socket, answer with exactly one reply;
- it never outlives its daemon: the channel's end is a clean exit (0), and a thread watches for a
  parent that died while a long step keeps the channel unread (exit 3);
- standard error is its log; interrupting the terminal is the daemon's affair, not the worker's.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
import time

from learner import channel
from learner.peer import Learner

PARENT_CHECK_S = 1.0
EXIT_ORPHANED = 3


def main() -> int:
    """Serve the socket `--fd` until the daemon closes it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="learner.worker", description="gossipd's learner process")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socketpair's end")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Ctrl-C reaches the whole foreground group; the daemon decides when its learner stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    with socket.socket(fileno=arguments.fd) as sock:
        serve(sock, Learner())
    return 0


def serve(sock: socket.socket, learner: Learner) -> None:
    """Answer commands in turn until the other end is gone."""
    try:
        while True:
            command, payload = channel.receive(sock)
            reply, outgoing = learner.answer(command, payload)
            channel.send(sock, reply, outgoing)
    except channel.ChannelClosed:
        return


def _watch_parent(parent: int) -> None:
    """An orphan is given to another process; nobody reads what it would still compute."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    raise SystemExit(main())
