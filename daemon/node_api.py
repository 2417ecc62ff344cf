"""The control API's methods about this daemon: what it is, how it is, and what happened to it."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daemon.refusals import NEEDS_WEBSOCKET, RpcError
from daemon.running import Node
from daemon.version import VERSION


class NodeApi:
    """This daemon."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def info(self) -> dict[str, Any]:
        """What this daemon is: version, ids, addresses, files."""
        node = self._node
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "peer": node.overlay.my_id,
            "name": node.overlay.machine.table.me.name,
            "network": node.overlay.machine.network_id,
            "listen": node.overlay.address,
            "addresses": list(node.overlay.machine.table.me.addresses),
            "encrypted": node.notary is not None,
            **_membership(node),
            "control": node.control_binds,
            "data_dir": str(node.config.data_dir),
            "learner": node.config.learner.enabled,
        }

    async def status(self) -> dict[str, Any]:
        """How this daemon is: uptime, members, links, training, memory."""
        node = self._node
        live, posted = node.overlay.machine.table.live(), node.session.jobs.board.posted
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **await self.info(),
            "uptime_s": time.time() - node.started_at,
            "members": len(live),
            "join_error": _join_error(node),
            "neighbours": sorted(node.overlay.links),
            "wanted": sorted(node.overlay.machine.graph.wanted),
            "train": node.session.progress.to_json(),
            "paused": node.session.paused,
            "job": posted.brief() if posted else None,
            "traffic": asdict(node.overlay.traffic()),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_bytes": _rss_bytes(),
        }

    async def stop(self) -> dict[str, Any]:
        """Leave the network and end the daemon."""
        self._node.stop()
        return {"stopping": True}


class EventsApi:
    """What happened."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list(self, since: int = 0, prefix: str = "", limit: int = 200) -> dict[str, Any]:
        """The kept events numbered above `since` whose kind begins with `prefix`."""
        events = self._node.events.since(since, prefix=prefix, limit=max(0, limit))
        return {"events": [event.to_json() for event in events]}

    async def subscribe(
        self, connection: Any, prefix: str = "", since: int | None = None
    ) -> dict[str, Any]:
        """Send events as they happen, as `event` notifications (websocket only)."""
        if connection is None:
            message = "events.subscribe needs the websocket /rpc; over HTTP use events.list"
            raise RpcError(NEEDS_WEBSOCKET, "needs_websocket", message)
        connection.follow(prefix, since)
        return {"subscribed": prefix}


def _membership(node: Node) -> dict[str, Any]:
    """This peer's role, until when its certificate is valid, and why it was put out, if it was."""
    if node.notary is None:
        return {"role": None, "certificate_expires_at": None, "revoked": None}
    certified = node.notary.certified
    out = node.overlay.machine.table.revocations.by_peer.get(node.overlay.my_id)
    return {
        "role": certified.role,
        "certificate_expires_at": certified.expires_at,
        "revoked": None if out is None else (out.reason or "no reason was given"),
    }


def _join_error(node: Node) -> str:
    """Why this peer is still alone, '' once it is not."""
    failures = node.events.since(0, prefix="dial.failed", limit=1)
    alone = len(node.overlay.machine.table.live()) == 1
    return str(failures[0].data["reason"]) if failures and alone else ""


def _rss_bytes() -> int | None:
    """Resident memory now, where /proc tells it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize()
