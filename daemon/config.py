"""One peer's configuration: what its owner can set, and what that says about paths and ports.

Where it is read from is in `config_sources`, what is wrong with it in `config_checks`. What is
trained is not here but in the job.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from daemon.paths import default_data_dir
from learner.schema import section, setting

DEFAULT_PORT = 7400


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
    jobs_from: str = setting(
        "issuer",
        "the lowest role whose jobs this peer takes: founder, issuer (and the founder) or member"
        " (everybody); the same at all peers",
        choices=("founder", "issuer", "member"),
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
