"""A network of its own for each daemon, and a cable between two halves that can be pulled.

Every host is a Linux network namespace; its interface ends at one of two bridges (left and right)
in one more namespace, and a trunk joins the bridges. With the trunk down, packets between the
halves vanish: nobody is told, no connection ends. Nothing is changed outside these namespaces; they
are named after this process, and gone when the block ends. Needs root and the `ip` command.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

COMMAND_S = 10.0
SIDES = ("left", "right")
_networks = itertools.count()


class NoNamespaces(Exception):
    """This machine does not let us make network namespaces; the message says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace: `address` is its only one, `prefix` runs a command in it."""

    address: str
    prefix: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitNetwork:
    """Hosts on two sides."""

    left: list[Host]
    right: list[Host]
    _switch: str

    def partition(self) -> None:
        """Pull the cable between the sides."""
        _ip("-n", self._switch, "link", "set", "trunk-left", "down")

    def join(self) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", "trunk-left", "up")


@contextmanager
def split_network(left: int, right: int) -> Iterator[SplitNetwork]:
    """So many hosts on each side, joined. Raises NoNamespaces."""
    _check()
    name = f"gossipd-{os.getpid()}-{next(_networks)}"
    with ExitStack() as stack:
        _open_switch(stack, f"{name}-switch")
        numbers = itertools.count(1)
        sides = [
            [_open_host(stack, name, next(numbers), side) for _ in range(size)]
            for side, size in zip(SIDES, (left, right), strict=True)
        ]
        yield SplitNetwork(*sides, f"{name}-switch")


def _check() -> None:
    if shutil.which("ip") is None:
        raise NoNamespaces("there is no `ip` command (iproute2)")
    name = f"gossipd-{os.getpid()}-check"
    try:
        _ip("netns", "add", name)
    except OSError as error:
        raise NoNamespaces(f"network namespaces cannot be made: {error}") from None
    try:
        _ip("netns", "exec", name, "true")
        _ip("-n", name, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", name, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    except OSError as error:
        raise NoNamespaces(f"network namespaces cannot be used: {error}") from None
    finally:
        _ip("netns", "delete", name)


def _open_switch(stack: ExitStack, switch: str) -> None:
    _open_namespace(stack, switch)
    _ip("-n", switch, "link", "add", "trunk-left", "type", "veth", "peer", "name", "trunk-right")
    for side in SIDES:
        _ip("-n", switch, "link", "add", side, "type", "bridge")
        _ip("-n", switch, "link", "set", side, "up")
        _ip("-n", switch, "link", "set", f"trunk-{side}", "master", side, "up")


def _open_host(stack: ExitStack, name: str, number: int, side: str) -> Host:
    host, switch, port = f"{name}-{number}", f"{name}-switch", f"port{number}"
    address = f"10.77.0.{number}"
    _open_namespace(stack, host)
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
    _ip("-n", switch, "link", "set", port, "master", side, "up")
    _ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", host, "link", "set", "lo", "up")
    _ip("-n", host, "link", "set", "eth0", "up")
    return Host(address, ("ip", "netns", "exec", host))


def _open_namespace(stack: ExitStack, name: str) -> None:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)


def _ip(*words: str) -> None:
    """Raises OSError with what `ip` said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=COMMAND_S)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
