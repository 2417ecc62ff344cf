"""Averaging by pairs while nobody waits: live peers over an in-memory network."""

import dataclasses

import pytest
import torch
import trio

from daemon.notes import Paired
from daemon.pair_exchange import LEND, MAX_DEBTS, OWED
from learner.job import Algorithm, Gossip, Partition, Training
from overlay.transfer import FetchFailed
from overlay.wire import Want

IDS = [letter * 52 for letter in "abcd"]


@pytest.fixture
def job(small_job):
    """Learning rate 0: a round is the averaging alone."""
    return dataclasses.replace(
        small_job,
        algorithm=Algorithm("ad-psgd"),
        optimizer=dataclasses.replace(small_job.optimizer, lr=0.0),
        training=Training(
            mode="async", rounds=100_000, local_steps=1, min_peers=4, evaluate_every=10_000,
            checkpoint_every=10_000,
        ),
        partition=Partition("iid", 4),
        gossip=Gossip("complete"),
    )  # fmt: skip


def scrambled(starts):
    """Every peer begins elsewhere."""

    def prepare(peer):
        def scramble(learner):
            session = learner._session
            seed = torch.Generator().manual_seed(ord(peer.id[0]))
            session._trainer.put(torch.randn(1, session._layout.dimension, generator=seed))
            starts[peer.id] = session._trainer.x[0].clone()

        peer.on_configured = scramble

    return prepare


async def all_of(start, job, prepare=None):
    running = [await start(peer[0], peer_id=peer, prepare=prepare) for peer in IDS]
    for peer in running:
        await peer.until(lambda peer=peer: len(peer.overlay.links) == 3)
    await running[0].session.jobs.submit(job)
    return running


def exchange_of(peer):
    return peer.session.running()._exchange


def owed_to(peer):
    """What has arrived for a peer and is not mixed in yet."""
    credits = [torch.frombuffer(c, dtype=torch.float32) for c in exchange_of(peer)._credits]
    return torch.stack(credits).sum(0) if credits else 0


async def test_peers_agree_and_the_sum_of_their_models_stays(peers, job):
    starts = {}
    async with peers() as start:
        running = await all_of(start, job, scrambled(starts))
        running[0].work_s = 1.0  # ten times slower than the others
        for peer in running:
            await peer.until(lambda peer=peer: peer.progress.round >= 10)
        for peer in running:
            peer.session.pause(True)
        for peer in running:
            await peer.until_state("paused")
        before = sum(starts.values())
        after = sum(peer.model() + owed_to(peer) for peer in running)
        assert float((after - before).norm() / before.norm()) < 1e-5
        models = torch.stack([peer.model() for peer in running])
        spread = float((models - models.mean(0)).norm())
        assert spread < 0.01 * float((torch.stack(list(starts.values())) - before / 4).norm())
        assert running[1].progress.round > 3 * running[0].progress.round


async def test_a_model_is_lent_once_between_two_mixings(peers, job):
    async with peers() as start:
        running = await all_of(start, job)
        await running[0].until(lambda: running[0].progress.round >= 3)
        for peer in running:
            peer.session.pause(True)
        for peer in running:
            await peer.until_state("paused")
        exchange, run = exchange_of(running[0]), running[0].session.running().run
        exchange._to_lend = exchange._to_lend or next(iter(exchange._debts.values()))
        want = Want(1, run, LEND, -1)
        await exchange.provide("peer", want, 3)
        with pytest.raises(FetchFailed, match="lent already"):
            await exchange.provide("peer", want, 3)
        with pytest.raises(FetchFailed, match="nothing is owed"):
            await exchange.provide("peer", Want(1, run, OWED, 99_999), 3)


async def test_whoever_has_nobody_to_meet_goes_on_alone(peers, job):
    lonely = dataclasses.replace(
        job, training=dataclasses.replace(job.training, min_peers=1, rounds=5)
    )
    async with peers() as start:
        peer = await start("a", job=lonely)
        await peer.until_state("finished")
        assert peer.progress.figures["neighbours"] == 0


async def test_a_neighbour_that_owes_without_end_is_asked_for_little_at_a_time(
    peers, job, monkeypatch
):
    asked = []

    async def fetch(peer, run, stream, version, *, check):
        asked.append(version)
        await trio.sleep_forever()

    async with peers() as start:
        running = await all_of(start, job)
        await running[0].until(lambda: running[0].progress.round >= 3)
        for peer in running:
            peer.session.pause(True)
        for peer in running:
            await peer.until_state("paused")
        exchange, run = exchange_of(running[0]), running[0].session.running().run
        exchange._credits.clear()
        monkeypatch.setattr(running[0].overlay, "fetch", fetch)
        for number in range(1000):
            exchange.on_paired(IDS[1], Paired(run, number))
        exchange.on_paired(IDS[2], Paired(run, 7))
        await running[0].until(lambda: len(asked) > MAX_DEBTS)
        assert sorted(asked) == sorted([*range(MAX_DEBTS), 7])
