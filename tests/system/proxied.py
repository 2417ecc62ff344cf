"""Daemons that reach each other through proxies only, so that one can be cut off.

Each daemon advertises the proxy in front of it. A link runs through the proxy of whoever was
dialled; the proxies know by the kernel's tables which daemon dialled (Linux), and so a fault can be
put on everything that one daemon hears, or says, whoever opened the connection.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cli.local_peers import LocalPeer, wait_until
from tests.system.swarm import Swarm, is_whole
from tests.system.tcp_proxy import Behaviour, TcpProxy


class ProxiedSwarm:
    """A swarm, and the proxy in front of each of its daemons by name."""

    def __init__(self, swarm: Swarm, proxies: dict[str, TcpProxy]) -> None:
        self.swarm = swarm
        self.proxies = proxies

    @property
    def peers(self) -> list[LocalPeer]:
        return list(self.swarm.peers.values())

    def found(self, *flags: str) -> None:
        """Start a daemon behind each proxy; all join through the first one's, as its
        ticket says."""
        first, *others = self.proxies
        join = ("--join", self._start(first, *flags).ticket)
        self.swarm.start_all(
            [lambda name=name: self._start(name, *flags, *join) for name in others]
        )
        wait_until(lambda: is_whole(self.peers), 20, f"a network of {len(self.proxies)}")

    def behave(self, behaviour: Behaviour) -> None:
        """Treat everybody so."""
        for proxy in self.proxies.values():
            proxy.behave(behaviour)

    def hold(self, name: str, *, deaf: bool = False, mute: bool = False) -> None:
        """Hold back all that one daemon would hear (`deaf`), or say to others (`mute`)."""
        pid = self.swarm[name].process.pid
        for other, proxy in self.proxies.items():
            if other == name:
                proxy.behave(Behaviour(hold_up=deaf, hold_down=mute))
            else:
                proxy.behave(Behaviour(hold_up=mute, hold_down=deaf), whose=pid)

    def cut(self, name: str) -> int:
        """Reset all connections of one daemon; how many there were."""
        pid = self.swarm[name].process.pid
        return sum(
            proxy.cut() if other == name else proxy.cut(whose=pid)
            for other, proxy in self.proxies.items()
        )

    def heal(self) -> None:
        """Be honest to everybody."""
        for proxy in self.proxies.values():
            proxy.heal()

    def _start(self, name: str, *flags: str) -> LocalPeer:
        proxy = self.proxies[name]
        peer = self.swarm.start(name, "--advertise", proxy.address, *flags)
        proxy.stand_before(int(peer.address.rpartition(":")[2]))
        return peer


@contextmanager
def open_proxied(swarm: Swarm, count: int, *, seed: int) -> Iterator[ProxiedSwarm]:
    """Proxies for p0, p1, … and no daemon yet; the daemons end with the swarm."""
    with ExitStack() as stack:
        proxies = {
            f"p{number}": stack.enter_context(TcpProxy(seed=seed + number, whose=owner_of))
            for number in range(count)
        }
        yield ProxiedSwarm(swarm, proxies)


def owner_of(port: int) -> int | None:
    """Which child of this process holds the end of a TCP connection that has this local port."""
    inodes = {
        f"socket:[{words[9]}]"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if int((words := line.split())[1].rpartition(":")[2], 16) == port
    }
    for pid in _children():
        with contextlib.suppress(OSError):  # it has just closed something, or ended
            if not inodes.isdisjoint(map(os.readlink, Path(f"/proc/{pid}/fd").iterdir())):
                return pid
    return None


def _children() -> Iterator[int]:
    me = str(os.getpid())
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent …
            if status.read_text().rpartition(")")[2].split()[1] == me:
                yield int(status.parent.name)
