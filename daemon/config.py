"""One peer's configuration: file, environment and flags become one checked, frozen Config.

Precedence: flag > GOSSIPD_* variable > file > default. Every mistake in any of them is reported at
once, each with where it was found. What is trained is not here but in the job.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from daemon.paths import default_config_file, default_data_dir
from learner.attacks.names import parse_attack
from learner.job import DOWNLOAD, check_source, is_code_reference
from learner.schema import Problem, SchemaError, parse, section, setting, suggestion
from overlay.addresses import is_loopback, split_address
from overlay.records import MAX_ADDRESSES
from overlay.tickets import is_ticket, read_ticket

DEFAULT_PORT = 7400
# sun_path of a Unix socket holds 108 bytes on Linux, 104 elsewhere, with the closing NUL.
MAX_SOCKET_PATH = 103


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """This peer."""

    name: str = setting("", "a label for people; default: host name and the port")
    data_dir: str = setting(
        "", "state, checkpoints, control socket; default: $XDG_DATA_HOME/gossipd"
    )
    log_level: str = setting(
        "info", "how much to log", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True)
class OverlaySettings:
    """Links to other peers."""

    listen: str = setting(
        "",
        "host:port for other peers; port 0 takes a free one; default: 127.0.0.1:7400, or a free"
        " port if that one is taken",
    )
    advertise: tuple[str, ...] = setting(
        (), "addresses (wss://host:port) told to others; needed when listening on 0.0.0.0 or ::"
    )
    join: tuple[str, ...] = setting(
        (), "tickets (gossipctl invite), or addresses (wss://host:port) of members to join through"
    )
    insecure: bool = setting(
        False,
        "plain links, neither encrypted nor authenticated, between daemons of this machine only:"
        " for trying things out",
    )
    certificate_days: float = setting(
        90.0, "how long the certificates that this peer issues are valid; renewed after two thirds"
    )
    profile: str = setting(
        "lan", "time constants of failure detection", choices=("lan", "local", "wan")
    )


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The JSON-RPC control API."""

    socket: str = setting("", "Unix socket (mode 0600); default: control.sock in the data dir")
    tcp: str = setting(
        "", "also listen on this host:port, with bearer tokens; beyond loopback only with TLS"
    )
    token_file: str = setting(
        "", "file (mode 0600) with the admin token; made if absent; default: control.token in the"
        " data dir"
    )  # fmt: skip
    read_token_file: str = setting(
        "", "file (mode 0600) with the token that only reads; made if absent; default: read.token"
        " in the data dir"
    )  # fmt: skip
    tls_certificate: str = setting("", "PEM file with the certificate (chain) of control.tcp")
    tls_key: str = setting("", "PEM file (mode 0600) with its key")
    hosts: tuple[str, ...] = setting(
        (), "host names by which clients reach control.tcp; default: the one it listens on"
    )


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """The learner process."""

    enabled: bool = setting(True, "false: a tracker or observer that trains nothing")
    threads: int = setting(0, "torch threads; 0 takes all cores", minimum=0, maximum=1024)
    nice: int = setting(
        5, "scheduling niceness, so that training never starves the overlay", minimum=0, maximum=19
    )
    allow: tuple[str, ...] = setting(
        (),
        "what a job from the network may use of this machine: package.module:name to import,"
        " folder:PATH or npz:PATH to read, mnist-download to fetch that data set. Code is called"
        " with the job's options: allow only what may be called with anybody's",
    )


@dataclass(frozen=True, slots=True)
class DataSettings:
    """This peer's data."""

    source: str = setting(
        "", "use this data source instead of the job's, such as folder:/data/scans; all of it is"
        " then this peer's own"
    )  # fmt: skip
    dir: str = setting("", "where torchvision finds data sets; default: datasets in the data dir")
    part: str = setting(
        "", "which part of a shared data set, as k or k/n counted from 1; default: a free one"
    )


@dataclass(frozen=True, slots=True)
class LieSettings:
    """For trials of robustness on one machine: this peer lies to its neighbours."""

    attack: str = setting(
        "", "NAME or NAME:key=value,… (docs/robustness.md); only while listening on loopback"
    )
    accomplices: tuple[str, ...] = setting(
        (), "names or ids of the peers that lie with this one, which it does not take for honest"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a peer is started with."""

    node: NodeSettings = section(NodeSettings)
    overlay: OverlaySettings = section(OverlaySettings)
    control: ControlSettings = section(ControlSettings)
    learner: LearnerSettings = section(LearnerSettings)
    data: DataSettings = section(DataSettings)
    lie: LieSettings = section(LieSettings)

    @property
    def data_dir(self) -> Path:
        """Where this peer keeps everything."""
        return Path(self.node.data_dir or default_data_dir()).expanduser().absolute()

    @property
    def control_socket(self) -> Path:
        """The control API's Unix socket."""
        return Path(self.control.socket or self.data_dir / "control.sock").expanduser().absolute()

    @property
    def token_file(self) -> Path:
        """The file with the admin token for the TCP control port."""
        return Path(self.control.token_file or self.data_dir / "control.token").expanduser()

    @property
    def read_token_file(self) -> Path:
        """The file with the read-only token for the TCP control port."""
        return Path(self.control.read_token_file or self.data_dir / "read.token").expanduser()

    @property
    def control_tls(self) -> tuple[Path, Path] | None:
        """The TCP control port's (certificate, key), None where it is plain."""
        if not self.control.tls_certificate:
            return None
        certificate = Path(self.control.tls_certificate).expanduser()
        return certificate, Path(self.control.tls_key).expanduser()

    @property
    def datasets(self) -> Path:
        """Where torchvision finds data sets."""
        return Path(self.data.dir or self.data_dir / "datasets").expanduser().absolute()

    @property
    def own_part(self) -> tuple[int | None, int | None]:
        """(zero-based part, number of parts) as configured; None for what is not said."""
        if not self.data.part:
            return None, None
        number, _, total = self.data.part.partition("/")
        return int(number) - 1, int(total) if total else None

    @property
    def display_name(self) -> str:
        """The name given, or the host's."""
        return self.node.name or socket.gethostname()


def load_config(
    file: Path | None, *, flags: Mapping[str, Any], environ: Mapping[str, str]
) -> Config:
    """The configuration from all its sources.

    `file` None: $GOSSIPD_CONFIG, or the default file if it exists. `flags` are dotted keys
    ('overlay.listen'). Raises SchemaError with every problem of every source.
    """
    problems: list[Problem] = []
    path = file or (Path(environ["GOSSIPD_CONFIG"]) if "GOSSIPD_CONFIG" in environ else None)
    if path is None and default_config_file().exists():
        path = default_config_file()
    layers = [
        (str(path), _read_file(path, problems)) if path is not None else ("", {}),
        ("environment", _read_environ(environ, problems)),
        ("command line", _nested(flags)),
    ]
    for source, table in layers:
        try:
            parse(Config, table, source=source, check=_check)
        except SchemaError as error:
            problems += error.problems
    if problems:
        raise SchemaError(problems)
    merged: dict[str, Any] = {}
    for _, table in layers:
        _overlay(merged, table)
    return parse(Config, merged, source="configuration", check=_check_together)


def _read_file(path: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        hint = f"write one with: gossipd init {path}"
        problems.append(Problem(str(path), "", "there is no such file", hint))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), "", f"cannot be read: {error}"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), "", f"is not valid TOML: {error}"))
    return {}


def _read_environ(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    """GOSSIPD_<SECTION>_<KEY>, and the short GOSSIPD_DATA_DIR, GOSSIPD_NAME, GOSSIPD_LISTEN."""
    known = {
        f"GOSSIPD_{part.name}_{key.name}".upper(): (part.name, key)
        for part in fields(Config)
        for key in fields(part.default_factory)  # type: ignore[arg-type]
    }
    short = {
        "GOSSIPD_DATA_DIR": "GOSSIPD_NODE_DATA_DIR",
        "GOSSIPD_NAME": "GOSSIPD_NODE_NAME",
        "GOSSIPD_LISTEN": "GOSSIPD_OVERLAY_LISTEN",
        "GOSSIPD_SOCKET": "GOSSIPD_CONTROL_SOCKET",
    }
    # Read by gossipctl and by load_config itself.
    others = {
        "GOSSIPD_CONFIG", "GOSSIPD_URL", "GOSSIPD_TOKEN_FILE", "GOSSIPD_CA_FILE", "GOSSIPD_TIMEOUT",
    }  # fmt: skip
    table: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith("GOSSIPD_") or name in others:
            continue
        if short.get(name, name) not in known:
            hint = suggestion(name, [*known, *short])
            problems.append(Problem("environment", name, "unknown variable", hint))
            continue
        part, key = known[short.get(name, name)]
        table.setdefault(part, {})[key.name] = _from_text(text, str(key.type))
    return table


def _from_text(text: str, hint: str) -> Any:
    if hint == "str":
        return text
    if hint.startswith("tuple"):
        return [item for item in re.split(r"[,\s]+", text) if item]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for dotted, value in flags.items():
        part, _, key = dotted.partition(".")
        table.setdefault(part, {})[key] = value
    return table


def _overlay(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict):
            _overlay(base.setdefault(key, {}), value)
        else:
            base[key] = value


def _check(config: Config, source: str) -> list[Problem]:
    """What one source can get wrong by itself."""
    problems = []
    addresses = [("overlay.advertise", a) for a in config.overlay.advertise]
    addresses += [("overlay.join", a) for a in config.overlay.join if not is_ticket(a)]
    addresses += [("overlay.listen", config.overlay.listen)] if config.overlay.listen else []
    addresses += [("control.tcp", config.control.tcp)] if config.control.tcp else []
    for key, address in addresses:
        try:
            split_address(address)
        except ValueError as error:
            problems.append(Problem(source, key, str(error)))
    for ticket in filter(is_ticket, config.overlay.join):
        try:
            read_ticket(ticket)
        except ValueError as error:
            problems.append(Problem(source, "overlay.join", str(error)))
    if not 0 < config.overlay.certificate_days <= 3650:
        message = "must be more than 0 and at most 3650"
        problems.append(Problem(source, "overlay.certificate_days", message))
    if len(config.overlay.advertise) > MAX_ADDRESSES:
        message = f"holds {MAX_ADDRESSES} addresses at most"
        problems.append(Problem(source, "overlay.advertise", message))
    if config.data.source and (wrong := check_source(config.data.source)):
        problems.append(Problem(source, "data.source", wrong))
    if config.data.part and not _is_part(config.data.part):
        hint = "write k or k/n with 1 ≤ k ≤ n, such as 3/20"
        problems.append(Problem(source, "data.part", f"{config.data.part!r} is no part", hint))
    for reference in config.learner.allow:
        named = is_code_reference(reference) or reference == DOWNLOAD
        if not named and check_source(reference):
            hint = f"write package.module:name, folder:PATH, npz:PATH or {DOWNLOAD}"
            problems.append(Problem(source, "learner.allow", f"{reference!r} is no name", hint))
    if config.lie.attack:
        try:
            parse_attack(config.lie.attack)
        except ValueError as error:
            problems.append(Problem(source, "lie.attack", str(error)))
    if len(config.display_name) > 64 or not config.display_name.isprintable():
        problems.append(Problem(source, "node.name", "must be printable, 64 characters at most"))
    return problems


def _check_together(config: Config, source: str) -> list[Problem]:
    """What only the whole configuration can get wrong."""
    problems = _check_control(config.control, source)
    if config.lie.accomplices and not config.lie.attack:
        problems.append(Problem(source, "lie.accomplices", "have no use without lie.attack"))
    addresses = (a for a in config.overlay.join if not is_ticket(a))
    beyond = [a for a in (*config.overlay.advertise, *addresses) if not _is_loopback(a)]
    if config.overlay.insecure:
        problems += _check_plain(config, beyond, source)
    if config.lie.attack and beyond:
        message = f"lies are for loopback only, not for {', '.join(beyond)}"
        hint = "leave lie.attack out, or advertise and join addresses of this machine"
        problems.append(Problem(source, "lie.attack", message, hint))
    if config.lie.attack and not config.learner.enabled:
        problems.append(Problem(source, "lie.attack", "has no use without a learner"))
    if config.overlay.listen:
        host, _ = split_address(config.overlay.listen)
        if host in ("0.0.0.0", "::") and not config.overlay.advertise:
            hint = "name the address others reach, such as --advertise wss://192.0.2.7:7400"
            message = "listening on every address needs overlay.advertise"
            problems.append(Problem(source, "overlay.listen", message, hint))
        if config.lie.attack and not _is_loopback(config.overlay.listen):
            hint = "listen on 127.0.0.1, or leave lie.attack out"
            problems.append(Problem(source, "lie.attack", "lies are for loopback only", hint))
    if len(os.fsencode(config.control_socket)) > MAX_SOCKET_PATH:
        hint = "choose a shorter --data-dir, or set control.socket"
        message = f"{config.control_socket} is too long for a Unix socket"
        problems.append(Problem(source, "control.socket", message, hint))
    return problems


def _check_plain(config: Config, beyond: list[str], source: str) -> list[Problem]:
    """What goes beyond this machine, or needs certificates, cannot be plain."""
    hint = "leave overlay.insecure (--insecure) out: links are then encrypted"
    listen = config.overlay.listen
    if listen and not _is_loopback(listen):
        beyond = [listen, *beyond]
    problems = []
    if beyond:
        message = f"plain links stay on this machine, and {', '.join(beyond)} is not loopback"
        problems.append(Problem(source, "overlay.insecure", message, hint))
    if any(map(is_ticket, config.overlay.join)):
        message = "a ticket is for a network with encrypted links"
        problems.append(Problem(source, "overlay.insecure", message, hint))
    return problems


def _check_control(control: ControlSettings, source: str) -> list[Problem]:
    """Beyond loopback the control port needs TLS, and names to be called by."""
    problems = []
    if bool(control.tls_certificate) != bool(control.tls_key):
        missing = "tls_certificate" if control.tls_key else "tls_key"
        hint = f"set control.{missing} to the PEM file, or leave both out"
        problems.append(
            Problem(source, f"control.{missing}", "certificate and key go together", hint)
        )
    if not control.tcp or _is_loopback(control.tcp):
        return problems
    if not control.tls_certificate and not control.tls_key:
        hint = (
            "write 127.0.0.1:PORT and reach it from elsewhere through an SSH tunnel, or set"
            " control.tls_certificate and control.tls_key"
        )
        problems.append(
            Problem(source, "control.tcp", "must be a loopback address unless it has TLS", hint)
        )
    elif split_address(control.tcp)[0] in ("0.0.0.0", "::") and not control.hosts:
        hint = 'list the names clients use, such as hosts = ["gossip.example.org"]'
        message = "listening on every address needs the names it is reached by"
        problems.append(Problem(source, "control.hosts", message, hint))
    return problems


def _is_loopback(address: str) -> bool:
    try:
        return is_loopback(split_address(address)[0])
    except ValueError:
        return False


def _is_part(text: str) -> bool:
    match = re.fullmatch(r"(\d+)(?:/(\d+))?", text)
    return bool(match) and 1 <= int(match[1]) <= int(match[2] or match[1])  # type: ignore[index]
