"""The real worker process: started, spoken to, killed, ended."""

import os
import signal

import pytest
import trio
import trio.testing

from daemon.learner_process import MAX_LOG_BYTES, LearnerDied, LearnerFailed, open_learner
from learner.messages import (
    Bootstrapped,
    Configure,
    Configured,
    LocalDone,
    RunLocal,
    Snapshot,
    SnapshotTaken,
)


@pytest.fixture
def configure(small_job, tmp_path):
    return Configure(
        job=small_job.to_json(), source="", data_dir=str(tmp_path), part=0,
        checkpoint_dir=str(tmp_path / "checkpoints"), resume=True, threads=1,
    )  # fmt: skip


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_learner_process_works_fails_politely_and_is_missed_when_killed(
    configure, tmp_path, monkeypatch
):
    (tmp_path / "learner.py").write_text("raise RuntimeError('code of the folder that it is in')")
    monkeypatch.chdir(tmp_path)
    async with open_learner(tmp_path / "learner.log", nice=3) as learner:
        with pytest.raises(LearnerFailed, match="before Configure") as refused:
            await learner.call(RunLocal(1, False), LocalDone)
        assert refused.value.kind == "job"
        ready, _ = await learner.call(configure, Configured)
        assert (ready.round, ready.dimension) == (0, 650)
        done, vectors = await learner.call(RunLocal(1, False), LocalDone)
        assert (done.round, len(vectors)) == (1, 4 * 650)
        assert os.getpriority(os.PRIO_PROCESS, learner.pid) == 3
        os.kill(learner.pid, signal.SIGKILL)
        with pytest.raises(LearnerDied, match="killed by SIGKILL"):
            await learner.call(RunLocal(2, False), LocalDone)
        assert await learner.died() == "killed by SIGKILL"
    assert is_gone(learner.pid)


async def test_a_learner_killed_before_it_read_its_command_has_died(configure, tmp_path):
    async with (
        open_learner(tmp_path / "learner.log", nice=0) as learner,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def ask():
            with pytest.raises(LearnerDied, match="killed by SIGKILL"):
                await learner.call(configure, Configured)

        await trio.testing.wait_all_tasks_blocked(0.05)
        os.kill(learner.pid, signal.SIGKILL)


async def test_a_learner_that_gives_the_wrong_reply_is_ended(tmp_path):
    async with open_learner(tmp_path / "learner.log", nice=0) as learner:
        learner._converse = lambda command, payload: _answer(SnapshotTaken(1))
        with pytest.raises(LearnerDied, match="answered Snapshot with SnapshotTaken"):
            await learner.call(Snapshot(), Bootstrapped)
        assert await learner.died() == "killed by SIGKILL"


async def _answer(reply):
    return reply, bytearray()


async def test_cancelling_a_command_ends_the_learner(configure, tmp_path):
    async with open_learner(tmp_path / "learner.log", nice=0) as learner:
        with trio.move_on_after(0.05):
            await learner.call(configure, Configured)
        assert await learner.died() == "killed by SIGKILL"


async def test_leaving_the_block_ends_the_process_whatever_it_does(tmp_path):
    log = tmp_path / "learner.log"
    log.write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    async with open_learner(log, nice=0) as learner:
        assert not is_gone(learner.pid)
    assert is_gone(learner.pid)
    assert (tmp_path / "learner.log.1").stat().st_size == MAX_LOG_BYTES + 1
    assert log.stat().st_size < MAX_LOG_BYTES


async def test_a_learner_that_cannot_be_started_is_one_that_died(tmp_path):
    log = tmp_path / "learner.log"
    log.mkdir()
    with pytest.raises(LearnerDied, match="cannot be started"):
        async with open_learner(log, nice=0):
            pass
