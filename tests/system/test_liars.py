"""A daemon that lies among honest ones, as real processes, and lies that are refused."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cli.local_peers import wait_until

ROUNDS = 25
JOB = f"""
name = "one of five lies"
seed = 3
[model]
name = "linear"
[partition]
parts = 5
[optimizer]
lr = 0.05
[training]
rounds = {ROUNDS}
local_steps = 5
min_peers = 5
[gossip]
topology = "complete"
[robust]
liars = 1
"""
LIE = "SignFlipping:scale=3"
LIMIT_S = 60  # torch takes seconds to import, more on a busy machine


def ctl(peer, *arguments):
    command = [sys.executable, "-m", "cli.gossipctl", "--data-dir", str(peer.data_dir)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_four_daemons_learn_in_spite_of_a_fifth_that_lies(network):
    (network.folder / "job.toml").write_text(JOB)
    first = network.start("p0", "--job", str(network.folder / "job.toml"))
    with ThreadPoolExecutor(4) as pool:
        flags = [(), (), (), ("--lie", LIE)]
        rest = list(pool.map(lambda n: network.start(f"p{n}", *flags[n - 1]), range(1, 5)))
    honest, liar = [first, *rest[:3]], rest[3]

    def done():
        states = [peer.call("train.status") for peer in network.peers]
        assert not [s["reason"] for s in states if s["state"] == "failed"]
        return all(s["state"] == "finished" for s in states)

    wait_until(done, LIMIT_S, "the job is done")
    for peer in honest:
        status = peer.call("train.status")
        assert status["round"] == ROUNDS
        assert status["accuracy_after"] > 0.85
        assert list(status["trust"]["suspicious"]) == [liar.peer_id]
        assert status["trust"]["suspicious"][liar.peer_id] >= 20
        assert (status["trust"]["refused"], status["trust"]["blocked"]) == ({}, [])
        assert [e["data"]["peer"] for e in peer.events("peer.suspicious")] == [liar.peer_id]
        rows = peer.call("metrics.get", since=ROUNDS // 2)["history"]
        assert all(row["weights"].get(liar.peer_id, 0.0) == 0 for row in rows)
    assert "1 at the most by the job, 1 tolerated here (rule nna)" in ctl(first, "topology")
    assert f"{liar.peer_id[:8]}  dropped by the rule for" in ctl(first, "train", "status")
    # Its owner leaves it out for good, by name, and takes that back.
    assert "blocked  True" in ctl(first, "block", "p4")
    assert "blocked" in ctl(first, "train", "status").splitlines()[-1]
    assert "blocked  False" in ctl(first, "unblock", "p4")
    assert liar.peer_id in first.call("node.status")["neighbours"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            [
                "--lie",
                LIE,
                "--listen",
                "0.0.0.0:0",
                "--advertise",
                "ws://192.0.2.7:1",
            ],
            ["lie.attack: lies are for loopback only", "listen on 127.0.0.1"],
        ),
        (["--lie", "SignFliping"], ["lie.attack", "did you mean 'SignFlipping'?"]),
    ],
)
def test_a_lie_that_may_not_be_told_is_refused(tmp_path, flags, words):
    command = [sys.executable, "-m", "cli.gossipd", "start", "--data-dir", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gossipd: ")
    assert all(line.startswith("gossipd: ") for line in done.stderr.splitlines())
    for word in words:
        assert word in done.stderr
