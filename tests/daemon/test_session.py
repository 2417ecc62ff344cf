"""Peers in memory: real sessions on a real overlay, the real learner inline, virtual time."""

import dataclasses
import os

import numpy as np
import pytest
import torch
import trio
import trio.testing

from daemon.checkpoint_folders import forget_older_runs
from daemon.job_office import read_offer
from daemon.learner_process import LearnerDied, LearnerFailed
from daemon.notes import NOTES, Announce, JobOffer, JobState, Proof, TrainState
from daemon.session import NotTraining
from daemon.store import StoreFull
from learner.job import Algorithm, Gossip, Job, Model, Partition, Training
from learner.messages import (
    Bootstrap,
    Configure,
    Evaluate,
    Evaluated,
    Export,
    Exported,
    Import,
    Mix,
    RunLocal,
    SaveCheckpoint,
    Snapshot,
    SnapshotTaken,
)
from overlay.codec import WireError
from overlay.mixing_matrix import mixing_matrix
from overlay.schedule import graph as schedule_graph
from overlay.transfer import FetchFailed
from overlay.wire import Want

A, B, C, D = (letter * 52 for letter in "abcd")


def training(job, **changes):
    return dataclasses.replace(job, training=dataclasses.replace(job.training, **changes))


def gossip(job, **changes):
    return dataclasses.replace(job, gossip=dataclasses.replace(job.gossip, **changes))


def distance(one, other):
    """Relative Euclidean distance of two models."""
    return float((one.model() - other.model()).norm() / one.model().norm())


async def start_all(start, count, job, *, together=True):
    """Peers a, b, … that train `job`, `together` from the first round on and never alone."""
    job = training(job, min_peers=count if together else 1)
    peers = [await start(name) for name in "abcde"[:count]]
    await linked(*peers)
    await peers[0].session.jobs.submit(job)
    return peers


async def linked(*peers):
    for peer in peers:
        others = {other.id for other in peers} - {peer.id}
        await peer.until(lambda peer=peer, others=others: others <= peer.overlay.links.keys())


# Training together.


async def test_peers_train_every_round_in_step_and_end_with_nearly_equal_models(peers, small_job):
    async with peers() as start:
        three = await start_all(start, 3, training(small_job, rounds=12))
        for peer in three:
            await peer.until_state("finished")
            assert peer.progress.round == 12
            assert peer.progress.figures["accuracy_after"] > 0.85
            assert not peer.saw("train.behind")
            rows = peer.store.rounds(peer.session.jobs.board.posted.run, since=0, limit=99)
            assert [row["round"] for row in rows] == list(range(1, 13))
            assert all((row["neighbours"], row["missing"]) == (2, 0) for row in rows)
        assert distance(three[0], three[1]) < 1e-5
        assert distance(three[0], three[2]) < 1e-5


async def test_lockstep_waits_for_the_slowest(peers, small_job):
    async with peers() as start:
        two = await start_all(start, 2, small_job)
        two[1].work_s = 1.5
        for peer in two:
            await peer.until_state("finished")
        assert distance(*two) < 1e-5
        rows = two[0].store.rounds(two[0].session.jobs.board.posted.run, since=2, limit=99)
        assert all(row["missing"] == 0 and row["wait_s"] > 1 for row in rows)


async def test_async_training_waits_for_nobody(peers, small_job):
    async with peers() as start:
        job = training(small_job, mode="async", rounds=8)
        quick, slow = await start_all(start, 2, job)
        slow.work_s = 20.0
        await quick.until_state("finished", within_s=30)
        assert slow.progress.round < 3
        await slow.until_state("finished")
        assert quick.id in slow.overlay.links
        mixes = [c for c in slow.learner.commands if isinstance(c, Mix)]
        assert any(mix.weights for mix in mixes)


async def test_async_mixing_gives_a_stale_model_less_weight(peers, small_job):
    async with peers() as start:
        job = training(small_job, mode="async", rounds=40, checkpoint_every=1000)
        quick, slow = await start_all(start, 2, job)
        slow.work_s = 1.0
        await quick.until_state("finished")
        weights = [c.weights[0] for c in quick.learner.commands if isinstance(c, Mix) and c.weights]
        assert max(weights) == 0.5
        assert 0 < min(weights) < 0.1


STATIC = ("{a} {b} 0.5", "{b} {c} 0.25", "{c} -> {d} 0.75", "{d} -> {a} 0.5")
# Round 1 of each on four peers a to d; entries are exact, rows and columns in their order on the
# first ring of the network of these tests.
WEIGHTS = {
    "complete": [[1 / 4] * 4] * 4,
    "ring": np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3,
    "star": [[1 / 4] * 4, [1 / 4, 3 / 4, 0, 0], [1 / 4, 0, 3 / 4, 0], [1 / 4, 0, 0, 3 / 4]],
    "one-peer-exponential": np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]) / 2,
}


@pytest.mark.parametrize("topology", [*WEIGHTS, "static", "base-k", "random-matching"])
async def test_one_sync_round_equals_w_times_x(peers, small_job, topology):
    """With learning rate 0 a round is the mixing alone: X ← W X."""
    ids = {i: i * 52 for i in "abcd"}
    starts = {}

    def prepare(peer):
        def scramble(learner):
            session = learner._session
            seed = torch.Generator().manual_seed(ord(peer.id[0]))
            vector = torch.randn(session._layout.dimension, generator=seed)
            session._trainer.put(vector[None])
            starts[peer.id] = vector.numpy()

        peer.on_configured = scramble

    edges = tuple(edge.format(**ids) for edge in STATIC) if topology == "static" else ()
    job = dataclasses.replace(
        gossip(small_job, topology=topology, degree=2, edges=edges),
        optimizer=dataclasses.replace(small_job.optimizer, lr=0.0),
        training=Training(rounds=1, local_steps=1, min_peers=4),
        partition=Partition("iid", 4),
    )
    async with peers() as start:
        all_of_them = [await start(i, peer_id=ids[i], prepare=prepare) for i in "abcd"]
        await linked(*all_of_them)
        await all_of_them[0].session.jobs.submit(job)
        for peer in all_of_them:
            await peer.until_state("finished")
        graph = all_of_them[0].overlay.machine.graph
        order = graph.learners()
        x = np.stack([starts[peer_id] for peer_id in order])
        by_id = {peer.id: peer.model().numpy() for peer in all_of_them}
        mixed = np.stack([by_id[peer_id] for peer_id in order])
        if topology in WEIGHTS:
            weights = np.array(WEIGHTS[topology], dtype=float)
        elif topology == "static":
            at = {i: order.index(ids[i]) for i in "abcd"}
            weights = np.zeros((4, 4))
            weights[at["a"], at["b"]] = weights[at["b"], at["a"]] = 0.5
            weights[at["b"], at["c"]] = weights[at["c"], at["b"]] = 0.25
            weights[at["d"], at["c"]], weights[at["a"], at["d"]] = 0.75, 0.5
            weights += np.diag(1 - weights.sum(axis=1))
        else:
            weights = mixing_matrix(schedule_graph(graph.topology.schedule, 0, order), "explicit")
            assert (weights > 0).sum() > 4
        np.testing.assert_allclose(mixed, weights @ x, atol=1e-5)


# Joining.


async def test_a_joiner_starts_from_its_neighbours_and_is_not_mixed_before(peers, small_job):
    async with peers() as start:
        job = training(small_job, rounds=40)
        old = [await start("a", job=job), await start("b")]
        await old[1].until(lambda: old[1].progress.round >= 12)
        joiner = await start("c")
        await joiner.until(lambda: joiner.saw("train.bootstrapped"))
        (told,) = joiner.saw("train.bootstrapped")
        assert told["round"] >= 12
        assert told["neighbours"] == sorted(peer.id for peer in old)
        assert told["accuracy"] > 0.85
        assert abs(told["accuracy"] - old[0].progress.figures["accuracy_after"]) < 0.05
        assert joiner.session.jobs.board.posted == dataclasses.replace(
            old[0].session.jobs.board.posted
        )
        for peer in [*old, joiner]:
            await peer.until_state("finished")
        assert distance(old[0], joiner) < 1e-4
        kinds = [type(command) for command in joiner.learner.commands]
        assert kinds[:2] == [Configure, Bootstrap]
        first = next(c for c in joiner.learner.commands if isinstance(c, RunLocal))
        assert first.round > told["round"]
        # Whoever announced a round to two partners before the joiner had a model is a bug.
        early = [e for e in old[0].events.since(0) if e.kind == "train.round"
                 and e.data["round"] <= told["round"]]  # fmt: skip
        assert all(event.data["neighbours"] <= 1 for event in early)


async def test_a_joiner_of_a_finished_network_takes_its_model_and_is_finished(peers, small_job):
    async with peers() as start:
        old = await start("a", job=small_job)
        await old.until_state("finished")
        joiner = await start("b")
        await joiner.until_state("finished")
        assert joiner.progress.round == 6
        assert not any(isinstance(c, RunLocal) for c in joiner.learner.commands)
        assert distance(old, joiner) < 1e-6


async def test_the_newcomers_job_gives_way_to_the_networks(peers, small_job):
    async with peers() as start:
        old = await start("a", job=training(small_job, rounds=2))
        joiner = await start("b")
        joiner.session.jobs.offer(Job(name="mine"))
        await joiner.until(lambda: joiner.session.jobs.board.posted)
        assert joiner.session.jobs.settle_offer() is None
        assert joiner.saw("job.ignored")
        assert joiner.session.jobs.settle_offer() is None
        assert len(joiner.saw("job.ignored")) == 1
        assert old.session.jobs.board.posted.job.name == "digits"


async def test_a_peer_far_behind_jumps_forward(peers, small_job):
    async with peers() as start:
        quick, slow = await start_all(
            start, 2, training(small_job, rounds=4000, evaluate_every=20), together=False
        )
        await slow.until(lambda: slow.progress.round >= 2)
        slow.session.pause(True)
        await slow.until_state("paused")
        behind = slow.progress.round
        await quick.until(lambda: quick.progress.round > behind + 10)
        slow.session.pause(False)
        await slow.until(lambda: slow.saw("train.behind"))
        assert slow.saw("train.behind") == [{"round": behind}]
        await slow.until_state("training")
        assert slow.saw("train.bootstrapped")[-1]["round"] > behind + 9
        await slow.until(lambda: slow.progress.round > behind + 20)


# Too few, paused, stopped.


async def test_below_min_peers_training_waits_and_goes_on_by_itself(peers, small_job):
    async with peers() as start:
        one = await start("a", job=training(small_job, min_peers=2))
        await one.until_state("waiting")
        assert one.progress.reason == "1 of at least 2 peers are here"
        await trio.sleep(60)
        assert one.progress.round == 0
        two = await start("b")
        for peer in (one, two):
            await peer.until_state("finished")


async def test_a_peer_that_goes_stops_the_others_below_min_peers_only(peers, small_job):
    async with peers() as start:
        job = training(small_job, rounds=100_000)
        one, two = await start_all(start, 2, job)
        await two.until(lambda: two.progress.round >= 3)
        two.vanish()
        await one.until_state("waiting")
        kept = one.progress.round
        await trio.sleep(30)
        assert one.progress.round == kept
        three = await start("c")
        await one.until(lambda: one.progress.round > kept)
        assert three.saw("train.bootstrapped")


async def test_a_peer_that_leaves_mid_training_does_not_stall_the_others(peers, small_job):
    async with peers() as start:
        job = training(small_job, rounds=100_000, checkpoint_every=10_000, evaluate_every=20)
        three = await start_all(start, 3, job, together=False)
        for peer in three:
            await peer.until(lambda peer=peer: peer.progress.round >= 3)
        three[2].vanish()
        at = three[0].progress.round
        began = trio.current_time()
        await three[0].until(lambda: three[0].progress.round >= at + 20)
        assert trio.current_time() - began < 20 * three[0].work_s + 4
        assert three[0].progress.figures["neighbours"] == 1


async def test_pause_keeps_everything_and_resume_goes_on(peers, small_job):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=200))
        await one.until(lambda: one.progress.round >= 2)
        one.session.pause(True)
        await one.until_state("paused")
        kept = one.progress.round
        await trio.sleep(60)
        assert (one.progress.round, one.progress.reason) == (kept, "by this peer's owner")
        one.session.pause(False)
        await one.until(lambda: one.progress.round > kept)
        assert len(one.learners) == 1


async def test_stop_saves_and_start_goes_on_from_there(peers, small_job):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=200, checkpoint_every=1000))
        await one.until(lambda: one.progress.round >= 3)
        await one.session.stop(True)
        await one.until_state("stopped")
        kept = one.progress.checkpoint_round
        assert kept >= 3
        assert one.progress.learner_pid is None
        assert one.store.get("stopped") == "yes"
        with pytest.raises(NotTraining, match="stopped: by this peer's owner"):
            one.session.running()
        await one.session.stop(False)
        await one.until(lambda: one.progress.round > kept)
        assert one.saw("train.resumed") == [{"round": kept}]
        assert len(one.learners) == 2


async def test_a_restarted_peer_has_its_job_part_and_round(peers, small_job):
    async with peers() as start:
        one = await start("a", peer_id=A, job=training(small_job, rounds=5))
        await one.until_state("finished")
        run = one.session.jobs.board.posted.run
        one.vanish()
    async with peers() as start:
        again = await start("a", peer_id=A)
        await again.until_state("finished")
        assert again.session.jobs.board.posted.run == run
        assert again.saw("train.resumed") == [{"round": 5}]
        assert again.progress.part == 0


# Failing.


async def test_a_learner_that_dies_comes_back_from_its_checkpoint_and_links_stay(peers, small_job):
    async with peers() as start:
        two = await start_all(start, 2, training(small_job, rounds=30))
        one = two[0]
        await one.until(lambda: one.progress.round >= 5)
        one.faults[RunLocal] = LearnerDied("killed by SIGKILL")
        await one.until(lambda: one.saw("learner.died"))
        assert one.saw("learner.died")[0]["reason"] == "killed by SIGKILL"
        for peer in two:
            await peer.until_state("finished")
        assert len(one.saw("learner.started")) == 2
        assert one.saw("train.resumed")[0]["round"] >= 4
        assert not any(peer.saw("link.down") for peer in two)
        assert distance(*two) < 1e-4


async def test_a_learner_that_dies_while_nobody_asks_it_anything_is_noticed(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job)
        await one.until_state("finished")
        one.learner.die("killed by SIGSEGV")
        await one.until(lambda: len(one.learners) == 2 and one.progress.state == "finished")
        assert one.saw("learner.died")[0]["reason"] == "killed by SIGSEGV"


async def test_a_learner_that_keeps_dying_is_restarted_ever_more_slowly(peers, small_job):
    async with peers() as start:
        one = await start("a")

        def die(learner):
            one.faults[RunLocal] = LearnerDied("exit code 1")

        one.on_configured = die
        await one.session.jobs.submit(small_job)
        await one.until(lambda: len(one.saw("learner.died")) == 4)
        waits = [told["restart_in_s"] for told in one.saw("learner.died")]
        assert waits == [0.5, 1.0, 2.0, 4.0]


async def test_a_learner_that_ends_together_with_the_daemon_does_not_spoil_the_farewell(
    peers, small_job
):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=100))
        await one.until(lambda: one.progress.round >= 1)
        one.faults[SaveCheckpoint] = LearnerDied("killed by SIGTERM")
        await one.session.farewell()


async def test_a_full_disk_costs_a_checkpoint_and_not_the_training(peers, small_job):
    async with peers() as start:
        one = await start("a")
        one.faults[SaveCheckpoint] = LearnerFailed("disk", "no space left on device")
        await one.session.jobs.submit(small_job)
        await one.until(lambda: one.saw("checkpoint.failed"))
        assert one.saw("checkpoint.failed") == [{"reason": "no space left on device"}]
        await one.until_state("finished")
        assert (one.progress.checkpoint_round, one.progress.checkpoint_error) == (6, "")


async def test_a_full_database_stops_neither_a_claim_nor_training(peers, small_job):
    async with peers() as start:
        one = await start("a")
        await one.session.jobs.submit(small_job)
        put = one.store.put

        def full(words):
            raise StoreFull("no space left for the database")

        one.store.put = full
        await one.until_state("finished")
        assert one.saw("disk.full")
        assert one.progress.part == 0
        one.store.put = put


async def test_a_job_that_cannot_be_remembered_is_not_told(peers, small_job):
    async with peers() as start:
        one, two = await start("a", job=small_job), await start("b")
        await two.until(lambda: two.session.jobs.board.posted)
        before = one.session.jobs.board.posted
        put = one.store.put

        def full(words):
            raise StoreFull("no space left for the database")

        one.store.put = full
        with pytest.raises(StoreFull):
            await one.session.jobs.submit(Job(name="another"))
        one.store.put = put
        await trio.sleep(5)
        assert one.session.jobs.board.posted == before == two.session.jobs.board.posted


async def test_metrics_wait_for_a_full_disk_and_are_not_lost(peers, small_job):
    async with peers() as start:
        one = await start("a")
        add_round = one.store.add_round

        def full(*row):
            raise StoreFull("no space left for the database")

        one.store.add_round = full
        await one.session.jobs.submit(small_job)
        await one.until_state("finished")
        assert len(one.saw("disk.full")) == 1
        one.store.add_round = add_round
        run = one.session.jobs.board.posted.run
        await one.until(lambda: len(one.store.rounds(run, since=0, limit=9)) == 6)


async def test_a_model_of_another_layout_is_refused_clearly_and_others_train_on(peers, small_job):
    async with peers() as start:
        job = training(small_job, rounds=2000, checkpoint_every=10_000)
        two = await start_all(start, 2, job, together=False)
        await two[0].until(lambda: two[0].progress.round >= 3)
        odd = await start("c", prepare=odd_layout)
        await odd.until_state("failed")
        (told,) = odd.saw("train.failed")
        assert told["kind"] == "layout"
        assert "650 values" in odd.progress.reason
        assert "same model code" in odd.progress.reason
        at = two[0].progress.round
        await two[0].until(lambda: two[0].progress.round > at + 3)
        assert two[0].progress.figures["neighbours"] == 1


def odd_layout(peer):
    """Let this peer's learner build an MLP whatever the job says."""
    configuration = peer.session._supervisor._configuration

    async def another(posted):
        command = await configuration(posted)
        job = dataclasses.replace(posted.job, model=Model("mlp", {"hidden": [4]}))
        return dataclasses.replace(command, job=job.to_json())

    peer.session._supervisor._configuration = another


# Jobs.


async def test_a_submitted_job_replaces_the_job_everywhere(peers, small_job):
    async with peers() as start:
        three = await start_all(start, 3, training(small_job, rounds=100_000))
        for peer in three:
            await peer.until(lambda peer=peer: peer.progress.round >= 2)
        other = dataclasses.replace(
            training(small_job, rounds=3, min_peers=3), name="other",
            model=Model("mlp", {"hidden": [8]}), gossip=Gossip(topology="ring"),
        )  # fmt: skip
        posted = await three[1].session.jobs.submit(other)
        for peer in three:
            await peer.until_state("finished")
            assert peer.session.jobs.board.posted.run == posted.run
            assert read_offer(peer.store.get("job_offer")).text == other.to_json()
            assert peer.progress.layout_text == "4 tensors, 610 values"
            assert peer.overlay.machine.graph.choice.name == "ring"
        assert three[1].store.get("job_own") == "yes"
        assert three[0].store.get("job_own") == ""
        assert distance(three[0], three[2]) < 1e-4


async def test_while_a_learner_starts_nobody_hears_of_the_last_jobs_layout(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job)
        await one.until_state("finished")
        assert one.session._train_state().layout
        heard = []
        one.on_configured = lambda learner: heard.append(one.session._train_state())
        await one.session.jobs.submit(dataclasses.replace(small_job, model=Model("mlp")))
        await one.until(lambda: heard)
        assert (heard[0].state, heard[0].layout, heard[0].layout_text) == ("starting", "", "")


async def test_a_job_of_foreign_code_is_refused_unless_the_owner_allows_it(peers, small_job):
    code = "sklearn.datasets:load_digits"
    job = dataclasses.replace(small_job, model=Model(code))
    async with peers() as start:
        one = await start("a")
        wary = await start("b")
        open_minded = await start("c", learner={"allow": (code,)})
        await linked(one, wary, open_minded)
        one.faults[Configure] = LearnerFailed("model", "not today")
        open_minded.faults[Configure] = LearnerFailed("model", "not today")
        await one.session.jobs.submit(job)
        await wary.until(lambda: wary.session.jobs.board.posted)
        await wary.until_state("failed")
        assert code in wary.progress.reason
        assert "learner.allow" in wary.progress.reason
        assert not wary.learners
        await open_minded.until(lambda: open_minded.saw("train.failed"))
        assert open_minded.saw("train.failed")[0]["reason"] == "not today"
        await one.until(lambda: one.saw("train.failed"))
        # A better job heals them all.
        await wary.session.jobs.submit(training(small_job, rounds=2))
        for peer in (one, wary, open_minded):
            await peer.until_state("finished")


# A model from a file.


async def export_of(peer, path):
    await peer.session.running().ask(Export(str(path)), Exported)
    return path


async def test_an_imported_model_is_gone_on_from_between_two_rounds(peers, small_job, tmp_path):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=12))
        await one.until(lambda: one.progress.round >= 2)
        path = await export_of(one, tmp_path / "model.safetensors")
        await one.until(lambda: one.progress.round >= 5)
        one.session.pause(True)
        await one.until_state("paused")
        imported = await one.session.running().import_model(str(path))
        assert imported.round == one.progress.round
        (told,) = one.saw("model.imported")
        assert told == {
            "path": str(path), "round": imported.round, "accuracy": imported.accuracy,
            "test_loss": imported.test_loss,
        }  # fmt: skip
        assert one.progress.figures["accuracy_after"] == imported.accuracy
        again = await export_of(one, tmp_path / "again.safetensors")
        assert again.read_bytes() == path.read_bytes()
        # It outlives a crash: it was saved before it was acknowledged.
        assert one.progress.checkpoint_round == imported.round
        one.learner.die()
        await one.until(lambda: len(one.saw("learner.started")) == 2)
        again = await export_of(one, tmp_path / "again.safetensors")
        assert again.read_bytes() == path.read_bytes()
        one.session.pause(False)
        await one.until_state("finished")


async def test_an_import_waits_for_the_end_of_the_round(peers, small_job, tmp_path):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=8))
        await one.until(lambda: one.progress.round >= 1)
        path = await export_of(one, tmp_path / "model.safetensors")
        await one.session.running().import_model(str(path))
        await one.until_state("finished")
        kinds = [type(c) for c in one.learner.commands]
        assert kinds[kinds.index(Import) - 1] is not RunLocal


async def test_a_model_that_does_not_fit_is_refused_and_training_goes_on(
    peers, small_job, tmp_path
):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=8))
        await one.until(lambda: one.progress.round >= 1)
        path = tmp_path / "model.safetensors"
        path.write_bytes(b"nonsense")
        with pytest.raises(LearnerFailed, match="no whole safetensors file"):
            await one.session.running().import_model(str(path))
        await one.until_state("finished")
        assert not one.saw("model.imported")


async def test_nothing_is_imported_before_a_newcomer_has_its_start(peers, small_job, tmp_path):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=8))
        await one.until_state("finished")
        run = one.session.running()
        one.session.publish_state("bootstrapping")
        with pytest.raises(LearnerFailed, match="once it trains"):
            await run.import_model(str(tmp_path / "model.safetensors"))


async def test_where_a_sum_must_stay_an_import_begins_it_anew_for_all(peers, small_job, tmp_path):
    job = dataclasses.replace(training(small_job, rounds=20), algorithm=Algorithm("gt"))
    async with peers() as start:
        two = [await start("a", job=job), await start("b")]
        await two[1].until(lambda: two[1].progress.round >= 4)
        path = await export_of(two[0], tmp_path / "model.safetensors")
        seen = [len(peer.learner.commands) for peer in two]
        await two[0].session.running().import_model(str(path))
        for peer in two:
            await peer.until_state("finished")
        for peer, before in zip(two, seen, strict=True):
            later = [c for c in peer.learner.commands[before:] if isinstance(c, RunLocal)]
            assert any(command.restart for command in later)


async def test_allowing_code_while_running_starts_the_refused_job(peers, small_job):
    code = "sklearn.datasets:load_digits"
    async with peers() as start:
        one = await start("a")
        one.faults[Configure] = LearnerFailed("model", "not today")
        two = await start("b")
        await linked(one, two)
        await one.session.jobs.submit(dataclasses.replace(small_job, model=Model(code)))
        await two.until_state("failed")
        two.faults[Configure] = LearnerFailed("model", "not today")
        allowing = dataclasses.replace(two.config.learner, allow=(code,))
        two.session.reconfigure(dataclasses.replace(two.config, learner=allowing))
        await two.until(lambda: two.saw("train.failed"))
        assert two.progress.reason == "not today"


async def test_nonsense_in_a_note_is_the_senders_fault(peers):
    async with peers() as start:
        one = await start("a")
        with pytest.raises(WireError):
            one.session.note(B, b"nonsense")
        assert one.session.jobs.board.posted is None


async def test_when_a_member_is_revoked_the_job_in_force_is_weighed_anew(peers, monkeypatch):
    async with peers() as start:
        one = await start("a")
        reviews = []
        monkeypatch.setattr(one.session.jobs, "review", lambda: reviews.append("job"))
        one.session.report("member.revoked", {"peer": B})
        assert reviews == ["job"]


async def test_a_job_that_cannot_be_read_is_reported_and_left_alone(peers):
    async with peers() as start:
        one = await start("a")
        for text in ("{}}", '{"nam": "a key of a later version"}'):
            one.session.note(B, NOTES.encode(JobOffer(3, text, Proof())))
        assert [told["from"] for told in one.saw("job.unreadable")] == [B[:8], B[:8]]
        assert "did you mean 'name'" in one.saw("job.unreadable")[1]["reason"]
        assert one.session.jobs.board.posted is None


async def test_a_submitted_job_starts_the_learner_once(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job)
        await one.until_state("finished")
        assert len(one.learners) == 1


async def test_a_job_that_ranks_lower_is_not_asked_for(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job)
        sent = []
        one.session.overlay.send_note = lambda peer, body: sent.append(body)
        one.session.note(B, NOTES.encode(JobState(1, "")))
        assert sent == []
        one.session.note(B, NOTES.encode(JobState(2, "")))
        assert len(sent) == 1


# Parts.


async def test_parts_are_claimed_without_collision(peers, small_job):
    async with peers() as start:
        five = await start_all(
            start, 5, dataclasses.replace(small_job, partition=Partition("iid", 5))
        )
        for peer in five:
            await peer.until_state("finished")
        assert sorted(peer.progress.part for peer in five) == [0, 1, 2, 3, 4]
        assert sorted(int(peer.store.get("part")) for peer in five) == [0, 1, 2, 3, 4]


async def test_when_all_parts_are_taken_the_reason_says_what_to_do(peers, small_job):
    job = dataclasses.replace(training(small_job, rounds=100_000), partition=Partition("iid", 1))
    async with peers() as start:
        one = await start("a", job=job)
        await one.until_state("training")
        two = await start("b")
        await two.until_state("failed")
        assert "all 1 parts of the data set are taken" in two.progress.reason
        assert "partition.parts" in two.progress.reason
        assert two.saw("train.failed")[0]["kind"] == "data"


async def test_a_configured_part_is_taken_and_a_wrong_one_refused(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job, data={"part": "3/3"})
        two = await start("b", data={"part": "1/7"})
        await one.until_state("finished")
        assert one.progress.part == 2
        await two.until_state("failed")
        assert "write 1/3" in two.progress.reason


async def test_ones_own_data_are_not_shared_out(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job, data={"source": "digits"})
        await one.until_state("finished")
        assert one.progress.part is None
        assert one.progress.samples == 1437


# What neighbours and owners ask for.


async def test_other_runs_and_unknown_streams_are_declined_politely(peers, small_job):
    async with peers() as start:
        one = await start("a")
        with pytest.raises(FetchFailed, match="no learner is running"):
            await one.session.provide(B, Want(1, "x", "round", 1))
        await one.session.jobs.submit(small_job)
        await one.until_state("finished")
        run = one.session.jobs.board.posted.run
        for want, reason in [
            (Want(1, "9-other", "round", 1), "another job"),
            (Want(1, run, "secrets", -1), "there is no stream"),
            (Want(1, run, "round", 1), "is not served"),
            (Want(1, run, "round", 99), "is not served"),
        ]:
            with pytest.raises(FetchFailed, match=reason):
                await one.session.provide(B, want)
        assert (await one.session.provide(B, Want(1, run, "round", 6))).version == 6
        assert (await one.session.provide(B, Want(1, run, "round", -1))).version == 6
        blob = await one.session.provide(B, Want(1, run, "model", -1))
        assert (blob.version, len(blob.data)) == (6, 4 * 650)
        assert bytes(blob.data) == one.model().numpy().tobytes()


async def test_owners_may_ask_between_rounds_and_hang_up(peers, small_job):
    async with peers() as start:
        one = await start("a")
        with pytest.raises(NotTraining, match="idle"):
            one.session.running()
        await one.session.jobs.submit(training(small_job, rounds=50))
        await one.until(lambda: one.progress.round >= 1)
        with trio.move_on_after(0.01) as scope:  # hangs up in the middle of a round
            await one.session.running().ask(Evaluate(), Evaluated)
        assert scope.cancelled_caught
        reply, _ = await one.session.running().ask(Evaluate(), Evaluated)
        assert reply.samples == 360
        one.faults[Snapshot] = LearnerFailed("bug", "sorry")
        with pytest.raises(LearnerFailed, match="sorry"):
            await one.session.running().ask(Snapshot(), SnapshotTaken)
        await one.until_state("finished")
        assert len(one.learners) == 1


async def test_a_daemon_without_a_learner_only_watches(peers, small_job):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=3))
        observer = await start("b", learner={"enabled": False})
        await one.until_state("finished")
        await observer.until(lambda: observer.session.jobs.board.posted)
        assert (observer.progress.state, observer.learners) == ("off", [])


async def test_a_lost_link_is_forgotten_and_states_are_told_again(peers, small_job):
    async with peers() as start:
        one, two = await start("a", job=small_job), await start("b")
        await one.until(lambda: one.session.view.state(two.id) is not None)
        two.vanish()
        await one.until(lambda: one.session.view.state(two.id) is None)


async def test_only_a_peer_that_knows_nobody_and_trains_nothing_gives_up_its_network(
    peers, small_job
):
    async with peers() as start:
        one = await start("a")
        assert one.session.may_adopt_network()
        two = await start("b")
        await linked(one, two)
        assert not two.session.may_adopt_network()
        assert two.saw("network.joined") == [{"network": one.overlay.machine.network_id}]
        assert two.store.get("network") == one.overlay.machine.network_id
    async with peers() as start:
        alone = await start("c", job=small_job)
        assert not alone.session.may_adopt_network()


async def test_neighbours_whose_learner_is_not_ready_do_not_count(peers):
    async with peers() as start:
        one, two = await start("a"), await start("b")
        await linked(one, two)
        for state, count in [("training", 2), ("waiting", 2), ("failed", 1), ("paused", 1)]:
            one.session.view.hear_state(two.id, TrainState("1-x", state, 0, "", "", 0))
            assert one.session.trainers() == count


async def test_a_question_that_the_end_of_a_run_overtakes_is_answered(peers, small_job):
    async with peers() as start:
        one = await start("a", job=training(small_job, rounds=1000))
        await one.until(lambda: one.progress.round >= 2)
        run, answers = one.session.running(), []

        async def ask():
            with pytest.raises(LearnerDied, match="training ended meanwhile"):
                await run.ask(Evaluate(), Evaluated)
            answers.append("told")

        # The lock is held as by a round that takes its time.
        async with trio.open_nursery() as nursery, run._between:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            one.session._supervisor.restart()
            await one.until(lambda: answers)
        assert answers == ["told"]


async def test_a_round_beyond_the_jobs_is_nonsense(peers, small_job):
    async with peers() as start:
        one = await start("a", job=small_job)
        await one.until_state("finished")
        run, last = one.session.jobs.board.posted.run, small_job.training.rounds
        one.session.note(B, NOTES.encode(TrainState(run, "training", last, "l", "t", 1)))
        for note in (
            TrainState(run, "training", last + 1, "l", "t", 1),
            Announce(run, last + 1, ()),
        ):
            with pytest.raises(WireError, match=f"round {last + 1} of {last}"):
                one.session.note(B, NOTES.encode(note))


def test_of_older_runs_only_the_newest_keeps_its_checkpoints(tmp_path):
    for age, name in enumerate(("4-d", "3-c", "2-b", "1-a")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    forget_older_runs(tmp_path / "4-d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3-c", "4-d"]
    forget_older_runs(tmp_path / "none" / "5-e")
