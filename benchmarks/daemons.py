"""Many `gossipd start --no-learner` daemons on loopback, as a group that can be measured.

Rules kept here:
- everything is learned through the control API, and times are those of the daemons' own events;
- a daemon is asked seldom, and a round of questions ends at the first one that is not there yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.course import News, Start
from benchmarks.processes import cores
from cli.local_peers import LocalPeer, local_peer

Kind = Literal["alive", "suspect", "dead"]
KINDS: dict[str, Kind] = {
    "member.joined": "alive",
    "member.returned": "alive",
    "member.refuted": "alive",
    "member.suspect": "suspect",
    "member.dead": "dead",
}
MOST_EVENTS = 5000  # more than the daemon keeps of all these kinds together


class Daemons:
    """The daemons by name; made by `daemons`."""

    def __init__(
        self, folder: Path, names: Sequence[str], *, profile: str, stack: ExitStack
    ) -> None:
        self.names = names
        self._folder = folder
        self._flags = ["--no-learner", "--profile", profile]
        self._stack = stack
        self._peers: dict[str, LocalPeer] = {}
        self._mute: set[str] = set()
        self._asked_in_order = list(names)

    def start(self) -> Start:
        """The founder, then the others, as many at once as there are cores; all join the founder.

        Raises PeerFailed.
        """
        began = time.time()
        founder = self.names[0]
        self._launch(founder)
        join = ["--join", self._peers[founder].ticket]
        with ThreadPoolExecutor(cores()) as pool:
            launches = pool.map(lambda name: self._launch(name, join), self.names[1:])
            ready_at, launched_at = max(launches)
        return Start(ready_at - began, launched_at, ready_at)

    def converged(self) -> bool:
        """Whether everybody holds everybody for alive, and has the links that the graph wants."""
        for name in self._asked_in_order:
            if not self._is_settled(name):
                self._asked_in_order.remove(name)
                self._asked_in_order.insert(0, name)
                return False
        return True

    def converged_at(self) -> float:
        """The last of: a member was held for alive, a wanted link came up."""
        times = [news.at for news in self.news(0.0) if news.kind == "alive"]
        for peer in self._peers.values():
            wanted = peer.call("node.status")["wanted"]
            links = peer.events("link.up", limit=MOST_EVENTS)
            times += [event["at"] for event in links if event["data"]["peer"] in wanted]
        return max(times)

    def kill(self, name: str) -> float:
        self._mute.add(name)
        return self._peers[name].kill()

    def restart(self, name: str) -> None:
        """With the same data directory, from which it finds its network. Raises PeerFailed."""
        self._launch(name)

    def stop(self, name: str) -> float:
        self._mute.add(name)
        return self._peers[name].stop()

    def resume(self, name: str) -> float:
        self._mute.discard(name)
        return self._peers[name].resume()

    def pids(self) -> list[int]:
        return [peer.process.pid for peer in self._peers.values()]

    def news(self, since: float) -> list[News]:
        """Of every daemon that can answer; a daemon's events end with its process."""
        return [
            News(event["at"], name, event["data"]["name"], KINDS[event["kind"]])
            for name, peer in self._peers.items()
            if name not in self._mute
            for event in peer.events("member.", limit=MOST_EVENTS)
            if event["at"] >= since and event["kind"] in KINDS
        ]

    def kill_all(self) -> None:
        """End them at once: thirty goodbyes, one after the other, take long."""
        for peer in self._peers.values():
            peer.kill()

    def _launch(self, name: str, join: Sequence[str] = ()) -> tuple[float, float]:
        """Start one; when it was ready, and when it was launched (Unix seconds)."""
        launched_at = time.time()
        flags = [*self._flags, *join]
        peer = self._stack.enter_context(local_peer(name, self._folder / name, flags))
        ready_at = time.time()
        self._peers[name] = peer
        self._mute.discard(name)
        return ready_at, launched_at

    def _is_settled(self, name: str) -> bool:
        peer = self._peers[name]
        members = peer.call("overlay.members")
        alive = {member["name"] for member in members if member["state"] == "alive"}
        status = peer.call("node.status")
        return alive == set(self.names) and set(status["wanted"]) <= set(status["neighbours"])


@contextmanager
def daemons(names: Sequence[str], folder: Path, *, profile: str) -> Iterator[Daemons]:
    """A group of daemons with their data in `folder`; none runs after the block."""
    with ExitStack() as stack:
        group = Daemons(folder, names, profile=profile, stack=stack)
        try:
            yield group
        finally:
            group.kill_all()
