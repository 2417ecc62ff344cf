import socket
import subprocess
import sys

import pytest
import torch

from learner import channel, worker
from learner import messages as say

LIMIT_S = 60


@pytest.fixture
def process():
    """A worker process and the daemon's end of its channel."""
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    command = [sys.executable, "-m", "learner.worker", "--fd", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=-1) as worker:
        theirs.close()
        yield worker, ours
        worker.kill()
        worker.stderr.close()


def ask(sock, message, payload=b""):
    channel.send(sock, message, payload)
    return channel.receive(sock)


def test_a_worker_process_trains_mixes_and_ends_with_its_channel(process, configure, small_job):
    worker, sock = process
    reply, _ = ask(sock, say.Snapshot())
    assert (type(reply), reply.kind) == (say.Failed, "job")
    configured, _ = ask(sock, configure(small_job))
    assert configured.dimension == 650
    done, payload = ask(sock, say.RunLocal(1, True))
    assert (done.round, len(payload)) == (1, 4 * 650)
    mixed, _ = ask(sock, say.Mix(1, 0.5, (0.5,), True), payload)
    assert (mixed.round, mixed.distance) == (1, 0.0)
    _, after = ask(sock, say.Snapshot())
    assert torch.equal(
        torch.frombuffer(after, dtype=torch.float32), torch.frombuffer(payload, dtype=torch.float32)
    )
    assert ask(sock, say.SaveCheckpoint())[0].round == 1
    sock.close()
    assert worker.wait(LIMIT_S) == 0


def test_a_worker_dies_with_its_parent_although_its_channel_stays_open():
    """The parent in the middle starts a worker, says its id and ends; we hold the channel."""
    ours, theirs = socket.socketpair()
    middle = (
        "import subprocess, sys\n"
        "w = subprocess.Popen([sys.executable, '-c', 'from learner import worker;'\n"
        "    'worker.PARENT_CHECK_S = 0.05; worker.main()', '--fd', sys.argv[1]],\n"
        "    pass_fds=[int(sys.argv[1])], stderr=subprocess.DEVNULL)\n"
        "print(w.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with ours, subprocess.Popen(
        [sys.executable, "-c", middle, str(theirs.fileno())],
        pass_fds=[theirs.fileno()], stdin=-1, stdout=-1, text=True,
    ) as parent:  # fmt: skip
        theirs.close()
        pid = int(parent.stdout.readline())
        ours.settimeout(LIMIT_S)
        ask(ours, say.Snapshot())  # it serves, so it watches
        parent.kill()
        parent.wait()
        ended = ours.recv(1) == b""
    assert ended, f"worker {pid} still holds its channel"


def test_serve_answers_each_command_once_until_the_channel_ends(ready, small_job):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in (say.Evaluate(), say.Snapshot()):
            channel.send(ours, message)
        ours.shutdown(socket.SHUT_WR)
        worker.serve(theirs, ready(small_job))
        theirs.close()
        kinds = [type(channel.receive(ours)[0]) for _ in range(2)]
        assert kinds == [say.Evaluated, say.SnapshotTaken]
        with pytest.raises(channel.ChannelClosed):
            channel.receive(ours)
