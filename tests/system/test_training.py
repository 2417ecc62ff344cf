"""Daemons with learners, as real processes: crashes, restarts, a full disk, a foreign client."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from jsonrpcclient import Ok, parse, request

from cli.client import ControlError, post
from cli.local_peers import local_peer, wait_until

START_S = 40  # torch takes seconds to import, more on a busy machine


def train(peer):
    return peer.call("train.status")


def wait_for_round(peer, number):
    def there():
        status = train(peer)
        assert status["state"] != "failed", status["reason"]
        return status["round"] >= number

    wait_until(there, START_S, f"round {number} of {peer.name}")


def test_a_killed_learner_comes_back_from_its_checkpoint_and_the_overlay_never_notices(network):
    first = network.start("a", "--job", str(network.job()))
    second = network.start("b")
    wait_for_round(first, 20)
    wait_for_round(second, 10)
    pid = train(first)["learner_pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: train(first)["learner_pid"] not in (pid, None), START_S, "a new learner")
    wait_until(lambda: first.events("train.resumed"), START_S, "it resumed")
    assert first.events("learner.died")[0]["data"]["reason"] == "killed by SIGKILL"
    resumed_at = first.events("train.resumed")[-1]["data"]["round"]
    assert resumed_at >= 5
    wait_for_round(first, resumed_at + 10)
    assert first.events("link.down") == []
    assert second.events("link.down") == []
    assert second.events("member.suspect") == []


def test_a_newcomer_starts_from_its_neighbours_and_a_restarted_daemon_goes_on(network):
    first = network.start("a", "--job", str(network.job()))
    wait_for_round(first, 30)
    with local_peer("b", network.folder / "b", ["--join", first.ticket]) as second:
        wait_until(lambda: second.events("train.bootstrapped"), START_S, "the average")
        start = second.events("train.bootstrapped")[0]["data"]
        assert start["round"] >= 30
        assert abs(start["accuracy"] - train(first)["accuracy_after"]) < 0.05
        wait_for_round(second, start["round"] + 20)
        reached, part = train(second)["round"], train(second)["part"]
        learner = train(second)["learner_pid"]
        second.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{learner}"), 10, "its learner ended as well")
    with local_peer("b", network.folder / "b") as again:
        wait_until(lambda: train(again)["state"] == "training", START_S, "training again")
        assert train(again)["round"] >= reached - 10
        assert train(again)["part"] == part
        wait_for_round(again, reached + 5)


def fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(network, tmp_path):
    small = network.folder / "a"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with local_peer("a", small, ["--job", str(network.job())]) as peer:
            wait_until(lambda: train(peer)["checkpoint_round"], START_S, "a first checkpoint")
            # Fill the disk to the last byte.
            fill(small / "filler")
            wait_until(lambda: peer.events("checkpoint.failed"), 20, "the failure is reported")
            assert "no space left" in peer.events("checkpoint.failed")[0]["data"]["reason"].lower()
            at = train(peer)["round"]
            wait_for_round(peer, at + 20)
            (small / "filler").unlink()
            wait_until(lambda: train(peer)["checkpoint_error"] == "", 20, "checkpoints again")
            assert train(peer)["checkpoint_round"] > at
    finally:
        subprocess.run(["umount", str(small)], check=True, capture_output=True)


def test_a_job_that_cannot_run_says_what_is_wrong_and_a_better_one_replaces_it(network):
    peer = network.start("a")
    with pytest.raises(ControlError, match="did you mean 'rounds'"):
        peer.call("job.submit", toml="[training]\nround = 5\n[model]\nname = 'mpl'\n")
    peer.call("job.submit", toml="[data]\nsource = 'mnist'\n")
    wait_until(lambda: train(peer)["state"] == "failed", START_S, "the missing data are reported")
    assert "mnist could not be read from" in train(peer)["reason"]
    peer.call("job.submit", toml="[training]\nrounds = 5\n[model]\nname = 'linear'\n")
    wait_until(lambda: train(peer)["state"] == "finished", START_S, "the better job is done")


def test_foreign_clients_call_every_read_only_method(network):
    peer = network.start("a", "--job", str(network.job()))
    wait_for_round(peer, 5)
    document = peer.call("rpc.discover")
    names = [m["name"] for m in document["methods"] if m["tags"] == [{"name": "read-only"}]]
    assert len(names) >= 9
    for name in names:
        # jsonrpcclient makes the request and judges the answer; curl carries both.
        answer = parse(json.loads(carry(peer, json.dumps(request(name)))))
        if name == "events.subscribe":
            assert "websocket" in answer.message
        else:
            assert isinstance(answer, Ok), f"{name}: {answer}"
    batch = [request("node.info", id=1), {"foo": "boo"}, request("nope", id=2),
             {"jsonrpc": "2.0", "method": "node.info"}, request("train.status", id=3)]  # fmt: skip
    answers = json.loads(carry(peer, json.dumps(batch)))
    assert [answer.get("error", {}).get("code") for answer in answers] == [
        None, -32600, -32601, None,
    ]  # fmt: skip
    assert [answer["id"] for answer in answers] == [1, None, 2, 3]
    assert json.loads(carry(peer, "{"))["error"]["code"] == -32700


def carry(peer, text):
    """The answer to a JSON-RPC text, by curl where there is one."""
    if shutil.which("curl") is None:
        return post(peer.target, text)
    command = ["curl", "--silent", "--unix-socket", str(peer.data_dir / "control.sock"),
               "--data-binary", "@-", "http://localhost/rpc"]  # fmt: skip
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=20)
    return done.stdout.decode()
