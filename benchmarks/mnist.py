"""Three owners, each with a twentieth of MNIST, train a convolutional network together.

    python -m benchmarks.mnist --data DIR [--json]

Real daemons on loopback; 3,000 of the 60,000 images each (part k of 20), five local epochs in all:
one epoch a round, five rounds of D-PSGD. `min_accuracy` is the worst of the three models on the
10,000 test images; `alone_mean_accuracy` is what each reaches by itself with the same budget. Exit
code 0 if `min_accuracy` reaches the target of 0.95, 1 if not, 2 if MNIST is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.local_peers import LocalPeer, interrupt_on_sigterm, local_peer, wait_until
from learner.job_file import job_from_toml

PEERS = 3
TARGET = 0.95
LIMIT_S = 900.0
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
         "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")  # fmt: skip

JOB = """
name = "mnist, three owners"
algorithm = "dpsgd"
seed = 1
[model]
name = "cnn"
[data]
source = "mnist"
[partition]
kind = "iid"
parts = 20
[optimizer]
name = "sgd"
lr = 0.05
momentum = 0.9
[training]
rounds = 5
local_epochs = 1
batch_size = 32
min_peers = 3
"""


def main() -> int:
    """Run the benchmark; its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.mnist", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where torchvision finds MNIST")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    raw = arguments.data / "MNIST" / "raw"
    missing = [name for name in FILES if not (raw / name).is_file()]
    if missing:
        print(f"MNIST is not there: {raw} lacks {', '.join(missing)}", file=sys.stderr)
        return 2
    result = measure(arguments.data.absolute())
    print(json.dumps(result) if arguments.json else _report(result))
    return 0 if result["min_accuracy"] >= TARGET else 1


def measure(data: Path) -> dict[str, Any]:
    """Train together, then alone; every figure."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gossipd-mnist-") as name, ExitStack() as stack:
        folder = Path(name)
        job = folder / "job.toml"
        job.write_text(JOB)
        peers: list[LocalPeer] = []
        for index in range(PEERS):
            flags = ["--datasets", str(data), "--part", f"{index + 1}/20"]
            flags += ["--join", peers[0].ticket] if peers else ["--job", str(job)]
            peers.append(
                stack.enter_context(local_peer(f"owner{index + 1}", folder / f"{index}", flags))
            )
        wait_until(lambda: all(_finished(peer) for peer in peers), LIMIT_S, "five rounds")
        wall_s = time.monotonic() - began
        tests = [peer.call("model.evaluate") for peer in peers]
        history = {p.name: p.call("metrics.get")["history"] for p in peers}
        alone = _alone(folder, data)
    accuracy = {peer.name: test["accuracy"] for peer, test in zip(peers, tests, strict=True)}
    return {
        "min_accuracy": min(accuracy.values()),
        "accuracy": accuracy,
        "test_samples": tests[0]["samples"],
        "alone_mean_accuracy": alone,
        "by_round": {
            name: [(row["accuracy_before"], row["accuracy_after"]) for row in rows]
            for name, rows in history.items()
        },
        "wall_s": wall_s,
        "cores": os.cpu_count(),
    }


def _finished(peer: LocalPeer) -> bool:
    train = peer.call("train.status")
    if train["state"] == "failed":
        raise RuntimeError(f"{peer.name}: {train['reason']}")
    return bool(train["state"] == "finished")


def _alone(folder: Path, data: Path) -> float:
    job = folder / "job.json"
    job.write_text(job_from_toml(JOB, source="benchmark").to_json())
    command = [sys.executable, "-m", "learner.alone", "--job", str(job),
               "--parts", ",".join(map(str, range(PEERS))), "--data-dir", str(data)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S)
    return float(json.loads(done.stdout)["mean"])


def _report(result: dict[str, Any]) -> str:
    lines = [f"{name}: {100 * value:.2f} % of {result['test_samples']} test images"
             for name, value in result["accuracy"].items()]  # fmt: skip
    lines.append(f"alone, with the same budget: {100 * result['alone_mean_accuracy']:.2f} % (mean)")
    lines.append(f"took {result['wall_s']:.0f} s on {result['cores']} cores")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
