"""Real daemons for the tests of this folder; every process started here ends with its test."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.local_peers import LocalPeer, local_peer

JOB = """
name = "system test"
seed = 3
[model]
name = "linear"
[partition]
parts = 4
[optimizer]
lr = 0.05
[training]
rounds = {rounds}
local_steps = 5
checkpoint_every = 5
"""


class Network:
    """Starts peers that join the first one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.peers: list[LocalPeer] = []
        self._stack = stack

    def job(self, rounds: int = 100_000) -> Path:
        path = self.folder / "job.toml"
        path.write_text(JOB.format(rounds=rounds))
        return path

    def start(self, name: str, *flags: str, alone: bool = False) -> LocalPeer:
        join = [] if alone or not self.peers else ["--join", self.peers[0].ticket]
        peer = self._stack.enter_context(local_peer(name, self.folder / name, [*flags, *join]))
        self.peers.append(peer)
        return peer


@pytest.fixture
def network(tmp_path_factory):
    # A short path: a Unix socket's name holds 103 bytes.
    with ExitStack() as stack:
        yield Network(tmp_path_factory.mktemp("net"), stack)
