"""The laboratory's numbers are the network's: one job, run both ways."""

import dataclasses

import pytest
import torch

from learner.data import load
from learner.job import ALGORITHMS, Job, Robust
from learner.job_file import job_from_table
from learner.lab import Conditions, Weights
from learner.lab.rounds import Lockstep
from learner.lab.run import shares

IDS = [letter * 52 for letter in "abcd"]
ROUNDS = 20


def job_of(algorithm: str, **gossip) -> Job:
    values = algorithm == "consensus"
    return job_from_table(
        {
            "algorithm": algorithm,
            "model": {"name": "values", "options": {"start": [1, [5], 9, 0]}} if values
            else {"name": "mlp", "options": {"hidden": [8]}},
            "data": {"source": "none"} if values else {},
            "partition": {"kind": "dirichlet", "alpha": 0.5, "parts": 4},
            "optimizer": {"lr": 0.05, "weight_decay": 0.001, "clip_norm": 2.0},
            "training": {
                "rounds": ROUNDS, "local_steps": 2, "batch_size": 16, "min_peers": 4,
                "evaluate_every": ROUNDS, "checkpoint_every": 1000,
            },
            "gossip": {"topology": "ring", **gossip},
        },
        source="test",
    )  # fmt: skip


async def live(peers, job):
    """The models, float32 [4, d], by part, the ids in that order, and the network's id."""
    async with peers() as start:
        running = [await start(peer[0], peer_id=peer) for peer in IDS]
        for peer in running:
            await peer.until(lambda peer=peer: len(peer.overlay.links) == 3)
        await running[0].session.jobs.submit(job)
        for peer in running:
            await peer.until_state("finished")
        running.sort(key=lambda peer: peer.progress.part)
        network = running[0].overlay.machine.network_id
        return torch.stack([peer.model() for peer in running]), [p.id for p in running], network


def in_the_lab(job, names, network):
    dataset = load(job.data, "", "", job.seed)
    weights = Weights(job, 4, names=names, seed=network)
    lab = Lockstep(job, dataset, shares(job, dataset), weights=weights, conditions=Conditions())
    for _ in range(ROUNDS):
        lab.step()
    return lab.x


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "ad-psgd"])
async def test_a_job_gives_the_same_models_live_and_in_the_laboratory(peers, algorithm):
    job = job_of(algorithm)
    models, names, network = await live(peers, job)
    expected = in_the_lab(job, names, network)
    difference = float((models - expected).norm() / expected.norm())
    assert difference < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "topology"),
    [
        ("dpsgd", "expander"),
        ("dpsgd", "one-peer-exponential"),
        ("gt", "base-k"),
        ("sgp", "exponential"),
        ("sgp", "star"),
    ],
)
async def test_and_so_on_other_graphs(peers, algorithm, topology):
    job = job_of(algorithm, topology=topology, degree=2)
    models, names, network = await live(peers, job)
    expected = in_the_lab(job, names, network)
    assert float((models - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("rule", ["nna", "clipped-gossip"])
async def test_and_so_by_a_robust_rule(peers, rule):
    """All four are honest; the rule drops or clips all the same."""
    job = job_of("dpsgd", topology="complete")
    robust = dataclasses.replace(job, robust=Robust(liars=1, rule=rule))
    models, names, network = await live(peers, robust)
    expected, plain = (in_the_lab(each, names, network) for each in (robust, job))
    assert float((models - expected).norm() / expected.norm()) < 1e-5
    assert float((models - plain).norm() / plain.norm()) > 1e-3


@pytest.mark.parametrize("algorithm", ["gt", "gt-atc", "gtadam"])
async def test_after_a_crash_the_trackers_of_those_who_are_left_sum_to_their_gradients_again(
    peers, algorithm
):
    job = job_of(algorithm, topology="complete")
    job = dataclasses.replace(
        job, training=dataclasses.replace(job.training, min_peers=2, rounds=30)
    )
    async with peers() as start:
        running = [await start(peer[0], peer_id=peer) for peer in IDS]
        for peer in running:
            await peer.until(lambda peer=peer: len(peer.overlay.links) == 3)
        await running[0].session.jobs.submit(job)
        *left, gone = running
        await gone.until(lambda: gone.progress.round >= 10)
        gone.vanish()
        for peer in left:
            await peer.until_state("finished")
        memories = [peer.learner.learner._session._algorithm.memory for peer in left]
        trackers = sum(memory["tracker"] for memory in memories)
        gradients = sum(memory["gradient"] for memory in memories)
        assert float((trackers - gradients).norm() / gradients.norm()) < 1e-4
