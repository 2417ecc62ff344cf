"""How the control API's answers look to people."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from cli.render import DASH, clock, duration, number, pairs, percent, size, table

SHORT = 8


PLAIN = "  (PLAIN: neither encrypted nor authenticated)"


def status(answer: dict[str, Any]) -> str:
    """`gossipctl status`."""
    train, job = answer["train"], answer["job"]
    state = train["state"] + (f" ({train['reason']})" if train["reason"] else "")
    lines = [
        ("peer", f"{answer['peer'][:SHORT]} ({answer['name']})"),
        ("network", answer["network"][:SHORT] or _still_joining(answer)),
        ("role", _role(answer)),
        ("listens", answer["listen"] + ("" if answer["encrypted"] else PLAIN)),
        ("members", answer["members"]),
        ("links", _links(answer)),
        ("job", f"{job['name']} (version {job['version']}, {job['digest']})" if job else None),
        ("training", state),
        ("round", f"{train['round']} of {train['rounds']}" if train["rounds"] else None),
        *figures(train),
        ("checkpoint", _checkpoint(train)),
        ("up", duration(answer["uptime_s"])),
        ("memory", size(answer["rss_bytes"])),
        ("data dir", answer["data_dir"]),
    ]
    return pairs(lines)


def _links(answer: dict[str, Any]) -> str:
    """How many links there are, and whether they are those that the graph wants."""
    missing = len(set(answer["wanted"]) - set(answer["neighbours"]))
    return f"{len(answer['neighbours'])}" + (f" ({missing} more wanted)" if missing else "")


def _role(answer: dict[str, Any]) -> str | None:
    if answer["revoked"] is not None:
        return f"REVOKED: {answer['revoked']}; it comes back with a new ticket"
    if answer["role"] is None:
        return None
    return f"{answer['role']}, certified for {_left(answer['certificate_expires_at'])}"


def _left(expires_at: float) -> str:
    """How long a certificate is still valid."""
    left_s = expires_at - time.time()
    return duration(left_s) if left_s > 0 else "EXPIRED"


def joined(answer: dict[str, Any]) -> str:
    """`gossipctl join`."""
    network = answer["network"][:SHORT]
    if answer["peer"] is None:
        return f"a member of network {network}; its links come up now"
    return f"linked to {answer['peer'][:SHORT]} of network {network}"


def invitation(answer: dict[str, Any]) -> str:
    """`gossipctl invite`: the ticket alone on standard output, so that it can be piped."""
    return str(answer["ticket"])


def rotated(answer: dict[str, Any]) -> str:
    """`gossipctl rotate`."""
    return f"this peer is now {answer['spelled']}\nits links come back under the new id"


def _still_joining(answer: dict[str, Any]) -> str:
    reason = answer.get("join_error")
    return "none yet: still joining" + (f" ({reason})" if reason else "")


def figures(train: dict[str, Any]) -> list[tuple[str, Any]]:
    """The newest training figures."""
    before, after = percent(train["accuracy_before"]), percent(train["accuracy_after"])
    return [
        ("model", train["model"]),
        ("data part", train["part"]),
        ("samples", train["samples"] or None),
        ("loss", number(train["loss"])),
        ("accuracy", f"{before or DASH} before mixing, {after} after" if after else None),
        ("consensus", number(train["consensus_distance"], 3)),
        ("spectral gap", number(train["spectral_gap"], 3)),
        ("staleness", _staleness(train["staleness"])),
        ("round time", f"{train['round_s']:.3f} s" if train["round_s"] else None),
    ]


def _staleness(rounds: float | None) -> str | None:
    return None if rounds is None else f"{rounds:.1f} rounds"


def _checkpoint(train: dict[str, Any]) -> str | None:
    if train["checkpoint_error"]:
        return f"FAILED: {train['checkpoint_error']}"
    saved = train["checkpoint_round"]
    return None if saved is None else f"round {saved}"


def members(answer: list[dict[str, Any]]) -> str:
    """`gossipctl members`."""
    rows = [
        (
            member["peer"][:SHORT],
            member["name"] + (" (this peer)" if member["self"] else ""),
            member["state"],
            "yes" if member["neighbour"] else "",
            ("yes" if member["learner"] else "no"),
            member["part"],
            member["role"],
            None if member["expires_at"] is None else _left(member["expires_at"]),
            " ".join(member["addresses"]),
        )
        for member in answer
    ]
    heads = ("PEER", "NAME", "STATE", "LINK", "TRAINS", "PART", "ROLE", "CERTIFIED", "ADDRESS")
    return table(heads, rows)


def topology(answer: dict[str, Any]) -> str:
    """`gossipctl topology`."""
    names = answer["names"]
    lines = [
        ("graph", GRAPHS[answer["graph"]]),
        ("topology", answer["topology"]),
        ("peers", answer["peers"]),
        ("edges", answer["edges"]),
        ("degree", f"{answer['degree_min']} to {answer['degree_max']}"),
        ("connected", "yes" if answer["connected"] else "NO"),
        ("diameter", answer["diameter"]),
        ("weights", answer["weights_by"]),
        ("spectral gap", number(answer["spectral_gap"])),
    ]
    if answer["graph"] == "mixing" and (robust := answer["robust"]) is not None:
        lines.append(("liars", _tolerance(robust)))
    if answer["period"] > 1:
        lines += [
            ("round", f"{answer['round']} (the graphs repeat after {answer['period']})"),
            ("gap of a period", f"{number(answer['period_gap'])} a round"),
        ]
    rows: list[tuple[Any, ...]] = [
        (peer[:SHORT], names.get(peer, ""), number(weight))
        for peer, weight in answer["weights"].items()
    ]
    if answer["self_weight"] is not None:
        rows.append(("", "(this peer)", number(answer["self_weight"])))
    head: tuple[str, ...] = ("MIXES IN", "NAME", "WEIGHT")
    if answer["graph"] == "overlay":  # nothing is mixed over these
        rows, head = [(peer, name) for peer, name, _ in rows if peer], ("LINK TO", "NAME")
    text = pairs(lines)
    return text + "\n\n" + table(head, rows) if rows else text


def _tolerance(robust: dict[str, Any]) -> str:
    """How many lying neighbours this peer can bear."""
    if robust["rule"] == "mean":
        return "none: every neighbour is believed (plain averaging)"
    text = f"{robust['liars']} at the most by the job, {robust['tolerated']} tolerated here"
    warning = f" – TOO FEW NEIGHBOURS: {robust['advice']}" if robust["advice"] else ""
    return f"{text} (rule {robust['rule']}){warning}"


GRAPHS = {"mixing": "who mixes with whom", "overlay": "the links that carry the membership"}


def metrics(answer: dict[str, Any]) -> str:
    """`gossipctl metrics`: the last rounds."""
    rows = [
        (
            row["round"],
            clock(row["at"]),
            number(row["loss"]),
            percent(row["accuracy_before"]),
            percent(row["accuracy_after"]),
            number(row["consensus_distance"], 3),
            row["neighbours"],
            row["missing"],
            f"{row['round_s']:.2f} s",
            size(row["bytes_sent"]),
        )
        for row in answer["history"]
    ]
    head = (
        "ROUND", "TIME", "LOSS", "BEFORE", "AFTER", "DISTANCE", "NEIGHBOURS", "MISSING", "TOOK",
        "SENT",
    )  # fmt: skip
    return table(head, rows) if rows else "no rounds yet"


def train(answer: dict[str, Any]) -> str:
    """`gossipctl train status`."""
    state = answer["state"] + (f" ({answer['reason']})" if answer["reason"] else "")
    lines = [("training", state), ("round", f"{answer['round']} of {answer['rounds']}")]
    rows = [
        (peer[:SHORT], neighbour["state"], neighbour["round"], neighbour["samples"])
        for peer, neighbour in answer["neighbour_states"].items()
    ]
    text = pairs([*lines, *figures(answer)])
    if rows:
        text += "\n\n" + table(("NEIGHBOUR", "STATE", "ROUND", "SAMPLES"), rows)
    held = _held_against(answer["trust"])
    return text + "\n\n" + table(("PEER", "HELD AGAINST IT"), held) if held else text


def _held_against(trust: dict[str, Any]) -> list[tuple[str, str]]:
    """What this peer holds against others, a line a peer."""
    peers = sorted({*trust["refused"], *trust["suspicious"], *trust["blocked"]})
    rows = []
    for peer in peers:
        words = [f"{n} refused: {cause}" for cause, n in trust["refused"].get(peer, {}).items()]
        if rounds := trust["suspicious"].get(peer):
            words.append(f"dropped by the rule for {rounds} rounds")
        if peer in trust["blocked"]:
            words.append("blocked")
        rows.append((peer[:SHORT], ", ".join(words)))
    return rows


def job(answer: dict[str, Any]) -> str:
    """`gossipctl job show`: the job as TOML."""
    if answer["job"] is None:
        return "there is no job yet; submit one with: gossipctl job submit job.toml"
    author = f", submitted by {answer['author'][:SHORT]}" if answer["author"] else ""
    lines = [f"# version {answer['version']}, digest {answer['digest']}{author}"]
    if answer["refused"]:
        lines.append(f"# NOT RUN HERE: {answer['refused']}")
    plain = {k: v for k, v in answer["job"].items() if not isinstance(v, dict)}
    lines += [f"{key} = {_toml(value)}" for key, value in plain.items()]
    for name, section in answer["job"].items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in section.items())]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def event(item: dict[str, Any]) -> str:
    """One line of `gossipctl events`."""
    words = []
    for key, value in item["data"].items():
        if key == "peer":
            value = str(value)[:SHORT]
        if isinstance(value, float):
            value = number(value)
        words.append(f"{key}={value}")
    return f"{clock(item['at'])}  {item['seq']:>5}  {item['kind']:<18} {' '.join(words)}".rstrip()


def events(answer: dict[str, Any]) -> str:
    """`gossipctl events`."""
    return "\n".join(event(item) for item in answer["events"]) or "no events"


def plain(answer: Any) -> str:
    """Anything else, a line a field."""
    if isinstance(answer, dict):
        return pairs([(key.replace("_", " "), value) for key, value in answer.items()])
    return str(answer)


View = Callable[[Any], str]
