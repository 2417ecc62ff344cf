"""What came of `gossipd local`, for people: its summary as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.client import USAGE, ControlError
from cli.render import number, percent, size, table

# More neighbours than this make a line of the table too long.
MAX_WEIGHTS = 6


def report(summary: dict[str, Any]) -> str:
    """A line a peer, then the whole."""
    head = ("PEER", "ROUND", "LOSS", "ACCURACY", "TEST LOSS", "DISTANCE", "MISSED", "SENT",
            "OWN WEIGHT", "WEIGHTS")  # fmt: skip
    rows = [
        (
            peer["name"] + (" (lies)" if peer["lies"] else ""),
            peer["round"],
            number(peer["loss"]),
            percent(peer["accuracy"]),
            number(peer["test_loss"]),
            number(peer["consensus_distance"], 3),
            peer["missing"],
            size(peer["bytes_sent"]),
            number(peer["own_weight"]),
            _weights(peer["weights"]),
        )
        for peer in summary["peers"]
    ]
    words = [f"{len(rows)} peers, {summary['rounds']} rounds in {summary['training_s']:.1f} s"]
    if liars := sum(peer["lies"] for peer in summary["peers"]):
        words.append(f"{liars} lie by {summary['attack']}; of the honest")
    if summary["mean_accuracy"] is not None:
        words.append(f"mean accuracy {percent(summary['mean_accuracy'])}")
        words.append(f"mean test loss {number(summary['mean_test_loss'])}")
    if summary["consensus_distance"] is not None:
        words.append(f"models {summary['consensus_distance']:.1e} of their norm from their mean")
    words.append(f"{summary['seconds']:.0f} s in all")
    return table(head, rows) + "\n\n" + ", ".join(words)


def _weights(weights: dict[str, float]) -> str:
    words = [f"{name} {number(weight)}" for name, weight in sorted(weights.items())]
    return ", ".join([*words[:MAX_WEIGHTS], *(["…"] if len(words) > MAX_WEIGHTS else [])])


def draw(summary: dict[str, Any], path: Path) -> None:
    """Accuracy and test loss of every peer over the rounds, or where nothing is predicted the
    consensus distance. Raises ControlError (usage)."""
    from matplotlib.figure import Figure

    keys = {"accuracy_after": "held-out accuracy", "test_loss": "test loss"}
    if summary["mean_accuracy"] is None:
        keys = {"consensus_distance": "relative consensus distance"}
    figure = Figure(figsize=(5.5 * len(keys), 4.5), layout="constrained")
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    for axes, (key, label) in zip(panels, keys.items(), strict=True):
        for peer in [peer for peer in summary["peers"] if not peer["lies"]]:
            seen = [(r["round"], r[key]) for r in peer["history"] if r.get(key) is not None]
            axes.plot([x for x, _ in seen], [y for _, y in seen], label=peer["name"])
        axes.set_xlabel("round")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
        if key == "consensus_distance":
            axes.set_yscale("log")
    figure.axes[-1].legend(fontsize=8, frameon=False)
    figure.suptitle(summary["job"])
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ControlError(USAGE, f"cannot write {path}: {error}") from None
