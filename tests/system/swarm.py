"""Many daemons for the chaos tests: started at once, watched, and gone with the block.

Rules kept here:
- all are trackers with the `local` profile unless a flag says otherwise;
- the block ends with SIGKILL for whoever is left: how daemons leave is tested elsewhere;
- what is waited for is a condition, with a limit; a fault lasts by `throughout`, which checks
  something all the while.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from cli.local_peers import POLL_S, LocalPeer, local_peer, wait_until

FLAGS = ("--no-learner", "--profile", "local")
# More daemons at a time would only wait for the two cores that CI has.
STARTERS = 6


class Swarm:
    """The running daemons by name, in the order in which they were started."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.peers: dict[str, LocalPeer] = {}
        self._stack = stack

    def __getitem__(self, name: str) -> LocalPeer:
        return self.peers[name]

    def start(self, name: str, *flags: str, prefix: Sequence[str] = ()) -> LocalPeer:
        """Start a daemon, or start it again in the data directory that it had."""
        peer = self._stack.enter_context(
            local_peer(name, self.folder / name, [*FLAGS, *flags], prefix=prefix)
        )
        self.peers[name] = peer
        return peer

    def start_all(self, starts: Iterable[Callable[[], LocalPeer]]) -> list[LocalPeer]:
        """Several starts at once."""
        with ThreadPoolExecutor(STARTERS) as pool:
            return [future.result() for future in [pool.submit(start) for start in starts]]

    def found(self, count: int, *flags: str) -> list[LocalPeer]:
        """A network of `count` daemons p0, p1, …, that all joined p0; linked as they should be.
        p1 is an issuer."""
        first = self.start("p0", *flags)
        issuer = first.call("network.invite", role="issuer")["ticket"]
        join = ("--join", first.ticket)
        others = [f"p{number}" for number in range(1, count)]
        peers = [
            first,
            *self.start_all(
                lambda name=name: self.start(
                    name, *flags, *(("--join", issuer) if name == "p1" else join)
                )
                for name in others
            ),
        ]
        wait_until(lambda: is_whole(peers), 15, f"a network of {count}")
        return peers

    def kill(self, peers: Iterable[LocalPeer]) -> None:
        """SIGKILL, all of them before the first is waited for."""
        peers = list(peers)
        for peer in peers:
            peer.process.send_signal(signal.SIGKILL)
        for peer in peers:
            peer.process.wait()
            self.peers.pop(peer.name, None)


@contextmanager
def open_swarm(folder: Path) -> Iterator[Swarm]:
    """No daemon yet; none afterwards. `folder` needs a short path, for it holds Unix sockets."""
    with ExitStack() as stack:
        swarm = Swarm(folder, stack)
        try:
            yield swarm
        finally:
            swarm.kill(swarm.peers.values())


def states(peer: LocalPeer) -> dict[str, str]:
    """What a daemon believes of everybody, by name."""
    return {member["name"]: member["state"] for member in peer.call("overlay.members")}


def incarnation(peer: LocalPeer, of: LocalPeer) -> int:
    """The incarnation under which `peer` knows `of`."""
    members = {member["peer"]: member for member in peer.call("overlay.members")}
    return int(members[of.peer_id]["incarnation"])


def standing(peer: LocalPeer) -> dict[str, tuple[str, int]]:
    """State and incarnation, by id, of those that a daemon counts as members (alive, suspect)."""
    members = peer.call("overlay.members")
    return {
        member["peer"]: (member["state"], member["incarnation"])
        for member in members
        if member["state"] in ("alive", "suspect")
    }


def links(peer: LocalPeer) -> set[str]:
    """The ids of a daemon's live links."""
    return set(peer.call("node.status")["neighbours"])


def is_whole(peers: Sequence[LocalPeer]) -> bool:
    """Whether these daemons, and they only, are alive to each other and linked as the graph wants.

    Their tables have to be equal: a word that is still under way could change somebody's mind.
    """
    ids = {peer.peer_id for peer in peers}
    first = standing(peers[0])
    if first.keys() != ids or any(state != "alive" for state, _ in first.values()):
        return False
    if any(standing(peer) != first for peer in peers[1:]):
        return False
    statuses = [peer.call("node.status") for peer in peers]
    return all(status["neighbours"] == status["wanted"] for status in statuses)


def declared_dead(peers: Iterable[LocalPeer], *, since: float = 0.0) -> set[str]:
    """The names of those that any of `peers` declared dead after `since` (Unix time)."""
    events = [event for peer in peers for event in peer.events("member.dead")]
    return {event["data"]["name"] for event in events if event["at"] >= since}


def on_disk(peer: LocalPeer, query: str) -> Any:
    """One value from a daemon's database."""
    with closing(sqlite3.connect(peer.data_dir / "state.db")) as db:
        return db.execute(query).fetchone()[0]


def throughout(seconds: float, holds: Callable[[], bool], what: str) -> None:
    """Let time go by, as long as a condition holds. Raises AssertionError that names `what`."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        assert holds(), f"not throughout {seconds:g} s: {what}"
        time.sleep(min(left, 2 * POLL_S))


def assert_sound(peers: Iterable[LocalPeer]) -> None:
    """The daemons run, and none of them met a bug of its own."""
    for peer in peers:
        log = peer.log
        assert peer.process.poll() is None, f"{peer.name} ended:\n{log[-2000:]}"
        bug = re.search(r"^.*(?:Traceback|a bug of ours| ERROR ).*$", log, re.MULTILINE)
        assert bug is None, f"{peer.name} logged:\n{log[bug.start() :][:4000]}"
