"""A running daemon as its control API sees it: its parts, and what it can be asked as a whole."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from daemon.config import Config
from daemon.credentials import Credentials
from daemon.events import EventLog
from daemon.learner_process import Learner, open_learner
from daemon.member_keeper import MemberKeeper
from daemon.office import Office
from daemon.session import Session
from daemon.store import Store
from learner.schema import SchemaError
from overlay.certificates import Certified
from overlay.driver import Overlay
from overlay.notary import Signing, say_again
from overlay.revocation import Revocation
from overlay.tls import Tls
from overlay.transport import Network

log = logging.getLogger("gossipd")

# Configuration keys that SIGHUP puts into force.
RELOADED = ("node.log_level", "learner.allow", "learner.jobs_from")


class Node:
    """A running daemon, as the control API sees it.

    `transport` carries its links; `notary` and `office` are those of a member of a network, None
    where links are plain.
    """

    overlay: Overlay
    transport: Network

    def __init__(
        self,
        config: Config,
        store: Store,
        credentials: Credentials,
        events: EventLog,
        read_config: Callable[[], Config],
    ) -> None:
        self._read_config = read_config
        self.config = config
        self.store = store
        self.credentials = credentials
        self.events = events
        self.notary: Signing | None = None
        self.office: Office | None = None
        self.keeper = MemberKeeper(store)
        self.session = Session(config, store, self.events, self._start_learner)
        self.started_at = time.time()
        self.control_binds: list[str] = []
        self._stopping = trio.Event()
        self.wants_restart = False
        self.certificate_lock = trio.Lock()  # one renewal, or change of key, at a time

    def _start_learner(self) -> AbstractAsyncContextManager[Learner]:
        log_file = self.config.data_dir / "learner.log"
        return open_learner(log_file, nice=self.config.learner.nice)

    def use_certificate(self) -> None:
        """The certificate was renewed: show it on new links, and tell everybody."""
        assert self.notary is not None
        assert isinstance(self.transport, Tls)
        self.notary.renew(self.credentials.chain)
        self.transport.contexts = self.credentials.contexts()
        self.overlay.describe_me()

    def restart(self) -> None:
        """Begin to leave, and to come back in the same process: under another id, or in another
        network."""
        self.wants_restart = True
        self._stopping.set()

    def stop(self) -> None:
        """Begin to leave."""
        self.wants_restart = False
        self._stopping.set()

    def is_revoked(self, peer: str) -> bool:
        """Whether a peer is out of the network for good."""
        return peer in self.overlay.machine.table.revocations

    def is_out(self, member: Certified) -> bool:
        """Whether a member is out: revoked, or a stranger whose issuer was."""
        table = self.overlay.machine.table
        known = table.get(member.peer_id) is not None
        return table.revocations.against(member, known=known) is not None

    async def give_up(self, revocation: Revocation) -> bool:
        """Remember and tell that a member gives up its own id; False if it did not say so."""
        if self.notary is None or not self.notary.may_revoke(revocation):
            return False
        await self.put_out(revocation)
        return True

    async def put_out(self, revocation: Revocation) -> None:
        """Remember and tell a revocation that may be said, if it is news. Raises StoreFailed."""
        known = self.overlay.machine.table.revocations
        told = [r for r in (*self.inherited(revocation.peer_id), revocation) if known.is_news(r)]
        await self.keeper.remember_revocations(told)
        for one in told:
            self.overlay.revoke(one)

    def inherited(self, author: str) -> list[Revocation]:
        """With an issuer goes its word: what the founder has heard of that it says for itself
        before, so that whom the issuer put out stays out."""
        authority = self.credentials.authority_key
        if authority is None:
            return []
        said = self.overlay.machine.table.revocations.said_by(author)
        return say_again(said, authority, self.credentials.network)

    @property
    def stopping(self) -> bool:
        """Whether this daemon is about to leave."""
        return self._stopping.is_set()

    def reload(self) -> None:
        """Read the configuration again; what needs a restart is said, a mistake changes nothing."""
        try:
            config = self._read_config()
        except SchemaError as error:
            self.events.add("config.rejected", {"reason": str(error)})
            log.error("the configuration is not reloaded: %s", error)
            return
        waits = [key for key in _changed_keys(self.config, config) if key not in RELOADED]
        self.config = _with_reloaded(self.config, config)
        logging.getLogger().setLevel(self.config.node.log_level.upper())
        self.session.reconfigure(self.config)
        self.events.add("config.reloaded", {"needs_restart": waits})
        log.info("configuration reloaded; a restart is needed for: %s", waits or "nothing")

    async def stopped(self) -> None:
        """Wait until somebody wants this daemon to leave."""
        await self._stopping.wait()


def _with_reloaded(old: Config, new: Config) -> Config:
    """The old configuration with the new values of the RELOADED keys."""
    for dotted in RELOADED:
        part, key = dotted.split(".")
        value = getattr(getattr(new, part), key)
        changed = dataclasses.replace(getattr(old, part), **{key: value})
        old = dataclasses.replace(old, **{part: changed})
    return old


def _changed_keys(old: Config, new: Config) -> list[str]:
    """The dotted keys in which two configurations differ."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    return [
        f"{part}.{key}"
        for part, table in before.items()
        for key, value in table.items()
        if after[part][key] != value
    ]
