"""gossipctl: drive a running daemon. Parses, calls the control API, renders.

Exit codes: 0 ok, 1 refused by the daemon, 2 usage, 3 unreachable, 4 not allowed, 5 timed out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import drawing, views
from cli.client import USAGE, ControlError, Target, call, post
from cli.version import ShowVersion

Arguments = argparse.Namespace
MAX_TIMEOUT_S = 1e6  # what a socket takes is not much more


def main(argv: list[str] | None = None) -> int:
    """The program; its exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # 'gossipctl events | head' ends quietly
    arguments = parser().parse_args(argv)
    try:
        target = _target(arguments)
        run: Callable[[Target, Arguments], None] = arguments.run
        run(target, arguments)
    except ControlError as error:
        if arguments.json:
            problem = {"message": str(error), "exit_code": error.exit_code, "data": error.data}
            print(json.dumps({"error": problem}))
        print(f"gossipctl: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="gossipctl", description="Drive a running gossipd.")
    top.add_argument("--version", action=ShowVersion)
    top.add_argument("--json", action="store_true", help="print JSON")
    top.add_argument("--data-dir", help="the daemon's data directory ($GOSSIPD_DATA_DIR)")
    top.add_argument("--socket", help="the daemon's control socket ($GOSSIPD_SOCKET)")
    top.add_argument(
        "--url", help="http://127.0.0.1:PORT or https://HOST:PORT, not the socket ($GOSSIPD_URL)"
    )
    top.add_argument("--token-file", help="bearer token for --url ($GOSSIPD_TOKEN_FILE)")
    top.add_argument("--ca-file", help="PEM certificates to trust for https ($GOSSIPD_CA_FILE)")
    top.add_argument("--timeout", type=float, help="seconds to wait ($GOSSIPD_TIMEOUT; 30)")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, help: str, run: Any, group: Any = commands) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = group.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        # Also after the command, where people write it; the default is the top parser's.
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )
        return command

    for name, help, method, view in (
        ("status", "how the daemon is", "node.status", views.status),
        ("members", "every known member", "overlay.members", views.members),
    ):
        _watchable(add(name, help, _show(method, view)))
    _add_topology(add)
    join = add("join", "become a member with a ticket, or link to a member", _join)
    join.add_argument("address", metavar="TICKET", help="or wss://host:port; - reads it from input")
    _add_network(add)
    add("leave", "leave the network and end the daemon", _show("overlay.leave", views.plain))
    add("stop", "the same as leave", _show("node.stop", views.plain))
    metrics = add("metrics", "figures of the last rounds", _metrics)
    metrics.add_argument("--since", type=int, default=0, help="from this round on")
    metrics.add_argument("--limit", type=int, default=20, help="at most so many rounds")
    _watchable(metrics)
    events = add("events", "what happened", _events)
    events.add_argument("--follow", action="store_true", help="go on as events happen")
    events.add_argument("--since", type=int, help="only events numbered above this")
    events.add_argument("--prefix", default="", help="only kinds that begin so, such as member.")
    _add_groups(add, commands)
    rpc = add("rpc", "call any method", _rpc)
    rpc.add_argument("method", help="such as node.status; rpc.discover lists them")
    rpc.add_argument("params", nargs="?", help="JSON array or object")
    add("raw", "send a JSON-RPC text (a batch, say) from standard input", _raw)
    return top


def _add_network(add: Any) -> None:
    invite = add("invite", "make a ticket with which others can join", _invite)
    invite.add_argument(
        "--ttl", type=_lasting, default=3600.0, metavar="TIME", help="30m, 1h, 7d (default: 1h)"
    )
    invite.add_argument("--uses", type=int, default=1, help="how many peers (default: 1)")
    invite.add_argument("--role", choices=("member", "issuer"), default="member",
        help="an issuer can invite others in turn (default: member)")  # fmt: skip
    revoke = add("revoke", "put a member out of the network, for good", _revoke)
    revoke.add_argument("peer", help="id, its beginning, or name")
    revoke.add_argument("--reason", default="", help="told to everybody")
    add("rotate", "change this peer's key", _show("network.rotate", views.rotated))


def _lasting(text: str) -> float:
    """Seconds of 90, 90s, 30m, 1h or 7d."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    unit = units.get(text[-1:])
    try:
        return float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 30m, 1h or 7d") from None


def _add_topology(add: Any) -> None:
    topology = add("topology", "the mixing graph and what it is worth", _topology)
    topology.add_argument("--round", type=int, default=0, help="of this round (default: the next)")
    topology.add_argument(
        "--links", action="store_true", help="the graph of links that carry the membership instead"
    )
    form = topology.add_mutually_exclusive_group()
    form.add_argument("--dot", action="store_true", help="as Graphviz text")
    form.add_argument("--png", type=Path, metavar="FILE", help="draw it into a file (matplotlib)")
    _watchable(topology)


def _add_groups(add: Any, commands: Any) -> None:
    for name, help in (
        ("block", "leave a peer out of this one's training"),
        ("unblock", "take a block back"),
    ):
        blocking = add(name, help, _blocking(f"train.{name}"))
        blocking.add_argument("peer", help="its id, the beginning of it, or its name")
    train = commands.add_parser("train", help="training at this peer")
    group = train.add_subparsers(metavar="ACTION", required=True)
    add("status", "where training stands", _show("train.status", views.train), group)
    for name, help in (
        ("start", "start again after stop"),
        ("stop", "save a checkpoint and end the learner"),
        ("pause", "pause after the current round"),
        ("resume", "go on after pause"),
    ):
        add(name, help, _show(f"train.{name}", views.plain), group)
    job = commands.add_parser("job", help="the network's job")
    group = job.add_subparsers(metavar="ACTION", required=True)
    add("show", "the job in force", _show("job.show", views.job), group)
    submit = add("submit", "make a job the network's", _submit, group)
    submit.add_argument("file", type=Path, help="a TOML job")
    model = commands.add_parser("model", help="the model as it is now")
    group = model.add_subparsers(metavar="ACTION", required=True)
    add("evaluate", "evaluate on the held-out data", _show("model.evaluate", views.plain), group)
    export = add("export", "write the model as safetensors", _export, group)
    export.add_argument("file", type=Path, help="where to, on this machine")
    import_ = add("import", "go on from the model of a safetensors file", _import, group)
    import_.add_argument("file", type=Path, help="the file, on this machine")


def _watchable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--watch", type=_period, nargs="?", const=2.0, metavar="S", help="again every S seconds"
    )


def _period(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"{text} is no period in seconds")
    return seconds


def _target(arguments: Arguments) -> Target:
    environ = os.environ
    data_dir = arguments.data_dir or environ.get("GOSSIPD_DATA_DIR")
    if data_dir is None:
        base = environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        data_dir = Path(base) / "gossipd"
    # --data-dir names a daemon more closely than a variable does.
    from_environment = None if arguments.data_dir else environ.get("GOSSIPD_SOCKET")
    socket = arguments.socket or from_environment or Path(data_dir) / "control.sock"
    token_file = arguments.token_file or environ.get("GOSSIPD_TOKEN_FILE")
    ca_file = arguments.ca_file or environ.get("GOSSIPD_CA_FILE")
    timeout = arguments.timeout
    if timeout is None:
        timeout = environ.get("GOSSIPD_TIMEOUT") or 30.0
    try:
        timeout_s = float(timeout)
    except ValueError:
        raise ControlError(USAGE, f"GOSSIPD_TIMEOUT={timeout!r} is no number") from None
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ControlError(USAGE, f"a timeout of {timeout_s:g} s is not possible")
    return Target(
        socket_path=Path(socket),
        url=arguments.url or environ.get("GOSSIPD_URL", ""),
        token_file=Path(token_file) if token_file else Path(data_dir) / "control.token",
        ca_file=Path(ca_file) if ca_file else None,
        timeout_s=timeout_s,
    )


def _show(method: str, view: views.View) -> Callable[[Target, Arguments], None]:
    """A command that calls one method without parameters and shows the answer."""

    def run(target: Target, arguments: Arguments) -> None:
        _present(lambda: call(target, method), view, arguments)

    return run


def _present(ask: Callable[[], Any], view: views.View, arguments: Arguments) -> None:
    """Show an answer once, or again and again with --watch."""
    period = getattr(arguments, "watch", None)
    while True:
        answer = ask()
        text = json.dumps(answer, indent=None if period else 2) if arguments.json else view(answer)
        if period and not arguments.json and sys.stdout.isatty():
            text = "\x1b[H\x1b[2J" + text
        print(text, flush=True)
        if not period:
            return
        time.sleep(period)


def _join(target: Target, arguments: Arguments) -> None:
    word = sys.stdin.readline().strip() if arguments.address == "-" else arguments.address
    _present(lambda: call(target, "overlay.join", {"address": word}), views.joined, arguments)


def _invite(target: Target, arguments: Arguments) -> None:
    params = {"ttl_s": arguments.ttl, "uses": arguments.uses, "role": arguments.role}
    _present(lambda: call(target, "network.invite", params), views.invitation, arguments)


def _revoke(target: Target, arguments: Arguments) -> None:
    params = {"peer": arguments.peer, "reason": arguments.reason}
    _present(lambda: call(target, "network.revoke", params), views.plain, arguments)


def _blocking(method: str) -> Callable[[Target, Arguments], None]:
    def run(target: Target, arguments: Arguments) -> None:
        _present(lambda: call(target, method, {"peer": arguments.peer}), views.plain, arguments)

    return run


def _topology(target: Target, arguments: Arguments) -> None:
    def ask() -> Any:
        graph = "overlay" if arguments.links else ""
        return call(target, "overlay.topology", {"graph": graph, "round": arguments.round})

    if arguments.dot and not arguments.json:
        print(drawing.dot(ask()))
    elif arguments.png is not None and not arguments.json:
        drawing.png(ask(), arguments.png)
        print(f"drawn into {arguments.png}")
    else:
        _present(ask, views.topology, arguments)


def _metrics(target: Target, arguments: Arguments) -> None:
    params = {"since": arguments.since, "limit": arguments.limit}
    _present(lambda: call(target, "metrics.get", params), views.metrics, arguments)


def _events(target: Target, arguments: Arguments) -> None:
    if not arguments.follow:
        params = {"since": arguments.since or 0, "prefix": arguments.prefix}
        _present(lambda: call(target, "events.list", params), views.events, arguments)
        return
    from cli.follow import follow  # here: the websocket library costs every call 50 ms

    for event in follow(target, prefix=arguments.prefix, since=arguments.since):
        print(json.dumps(event) if arguments.json else views.event(event), flush=True)


def _submit(target: Target, arguments: Arguments) -> None:
    try:
        text = arguments.file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ControlError(USAGE, f"cannot read the job: {error}") from None
    params: dict[str, Any] = {"toml": text}
    if "network" in text:  # a file of this machine, which the daemon must not be asked to read
        params = {"job": _read_job(arguments.file)}
    _present(lambda: call(target, "job.submit", params), views.plain, arguments)


def _read_job(path: Path) -> dict[str, Any]:
    from learner.job_file import read_table  # here: few calls need it
    from learner.schema import SchemaError

    try:
        return read_table(path)
    except (OSError, SchemaError) as error:
        raise ControlError(USAGE, f"cannot read the job: {error}") from None


def _export(target: Target, arguments: Arguments) -> None:
    path = str(arguments.file.absolute())
    _present(lambda: call(target, "model.export", {"path": path}), views.plain, arguments)


def _import(target: Target, arguments: Arguments) -> None:
    path = str(arguments.file.absolute())
    _present(lambda: call(target, "model.import", {"path": path}), views.plain, arguments)


def _rpc(target: Target, arguments: Arguments) -> None:
    params: Any = {}
    if arguments.params is not None:
        try:
            params = json.loads(arguments.params)
        except ValueError as error:
            raise ControlError(USAGE, f"PARAMS is not JSON: {error}") from None
        if not isinstance(params, (dict, list)):
            raise ControlError(USAGE, "PARAMS must be a JSON array or object")
    print(json.dumps(call(target, arguments.method, params), indent=2))


def _raw(target: Target, arguments: Arguments) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(post(target, sys.stdin.read()))


if __name__ == "__main__":
    sys.exit(main())
