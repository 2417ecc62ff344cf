"""Everything at once: three owners, three daemons on loopback, and what it was worth to each.

    python examples/private_data/run.py

Folders and daemons live in a temporary directory, which is removed afterwards.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import clinic
import make_folders
import torch
from safetensors.torch import load_file

from cli.local_peers import LocalPeer, interrupt_on_sigterm, local_peer, wait_until
from cli.render import percent, table
from learner import alone, data
from learner.evaluation import evaluate
from learner.job import Job
from learner.job_file import job_from_toml

HERE = Path(__file__).parent
LIMIT_S = 300.0


def main() -> None:
    """Run the example and print the table."""
    interrupt_on_sigterm()
    torch.set_num_threads(1)
    job = job_from_toml((HERE / "job.toml").read_text(), source="job.toml")
    with tempfile.TemporaryDirectory(prefix="owners-") as folder:
        print(compare(job, Path(folder)))


def compare(job: Job, folder: Path) -> str:
    """Train alone and together; the table."""
    owners = folder / "owners"
    make_folders.main(owners)
    print("\neach owner alone …", flush=True)
    before = {owner: accuracy_alone(job, owners / owner) for owner in make_folders.MIX}
    print("three daemons together …", flush=True)
    after = together(job, owners, folder)
    exported = {owner: accuracy_of_export(job, owners / owner, folder) for owner in after}
    head = ("OWNER", "IMAGES", "ALONE", "TOGETHER", "EXPORTED MODEL")
    rows = [
        (
            owner,
            len(list((owners / owner / "train").rglob("*.png"))),
            percent(before[owner]),
            percent(after[owner]),
            percent(exported[owner]),
        )
        for owner in after
    ]
    return "\n" + table(head, rows)


def with_folder(job: Job, folder: Path) -> Job:
    """The job as its owner's daemon runs it."""
    return dataclasses.replace(job, data=dataclasses.replace(job.data, source=f"folder:{folder}"))


def accuracy_alone(job: Job, folder: Path) -> float:
    """What this folder alone gives in the job's rounds, on the held-out images; a fraction."""
    own = with_folder(job, folder)
    return alone.alone(own, data.load(own.data, "", "", own.seed), 0)


def together(job: Job, owners: Path, folder: Path) -> dict[str, float]:
    """Three daemons train; the accuracy at each in the end, and NAME.safetensors in `folder`."""
    # As if clinic.py were installed: every learner finds it.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    began = time.monotonic()
    with ExitStack() as stack:
        peers: list[LocalPeer] = []
        for owner in make_folders.MIX:
            flags = ["--data", f"folder:{owners / owner}"]
            if peers:
                flags += ["--join", peers[0].ticket, "--config", str(HERE / "gossipd.toml")]
            else:
                flags += ["--job", str(HERE / "job.toml")]
            peers.append(stack.enter_context(local_peer(owner, folder / owner, flags)))
        wait_until(lambda: all(has_finished(peer) for peer in peers), LIMIT_S, "training ends")
        print(f"… {job.training.rounds} rounds after {time.monotonic() - began:.0f} s")
        for peer in peers:
            peer.call("model.export", path=str(folder / f"{peer.name}.safetensors"))
        return {peer.name: peer.call("train.status")["accuracy_after"] for peer in peers}


def has_finished(peer: LocalPeer) -> bool:
    """Whether a daemon's training has ended. Raises RuntimeError if it cannot train."""
    status = peer.ask("train.status") or {}
    if status.get("state") == "failed":
        raise RuntimeError(f"{peer.name}: {status['reason']}")
    return status.get("state") == "finished"


def accuracy_of_export(job: Job, folder: Path, exports: Path) -> float:
    """What the exported file is worth in plain torch, without gossipd."""
    own = with_folder(job, folder)
    dataset = data.load(own.data, "", "", own.seed)
    model = clinic.make(dataset.input_shape, dataset.classes, **job.model.options)
    model.load_state_dict(load_file(exports / f"{folder.name}.safetensors"))
    return evaluate(model, dataset.x_test, dataset.y_test).accuracy


if __name__ == "__main__":
    main()
