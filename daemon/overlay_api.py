"""The control API's methods about the overlay: members, graphs, joining and leaving."""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from daemon.entering import take_ticket
from daemon.mixing_graph import Rows, rows_of
from daemon.refusals import BAD_ADDRESS, BAD_GRAPH, JOIN_FAILED, RpcError, store_failed
from daemon.running import Node
from daemon.store import StoreFailed
from learner.job import Robust
from learner.tolerance import advice, tolerated
from overlay.addresses import split_address
from overlay.certificates import read_chain
from overlay.driver import JoinFailed
from overlay.enrolment import Denied, Unreachable
from overlay.identity import short
from overlay.mixing_matrix import MAX_DENSE
from overlay.neighbourhood import MEMBERSHIP_RINGS
from overlay.records import Member, Record
from overlay.tickets import is_ticket, read_ticket
from overlay.transport import Tcp

JOIN_TIMEOUT_S = 10.0
# The slowest of the graphs of 10,000 peers takes 5 s.
REPORT_TIMEOUT_S = 60.0


def _robust(chosen: Robust, degree: int) -> dict[str, Any]:
    """What a mixing rule bears with so many neighbours, and what the job asks of it."""
    return {
        "rule": chosen.rule if chosen.active else "mean",
        "liars": chosen.liars if chosen.active else 0,
        "tolerated": tolerated(degree) if chosen.active else 0,
        "advice": advice(chosen.liars, degree) if chosen.active else "",
    }


def _certificate(record: Record) -> dict[str, Any]:
    """A member's role and until when its certificate is valid; None in a network of plain links."""
    if not record.chain:
        return {"role": None, "expires_at": None}
    certified = read_chain(record.chain)
    return {"role": certified.role, "expires_at": certified.expires_at}


def _not_joined(message: str, *, outcome: str = "declined", why: str = "") -> RpcError:
    return RpcError(JOIN_FAILED, "join_failed", message, outcome=outcome, why=why)


async def reported(rounds: list[Rows], at: int, rule: str, me: str) -> dict[str, Any]:
    """What `graph_report.describe` answers, by a process that ends with this call, whatever becomes
    of it.

    Raises OSError when none can be started, subprocess.CalledProcessError when it fails."""
    done = await trio.run_process(
        # -P: nothing is imported from the folder in which the daemon was started.
        [sys.executable, "-P", "-m", "daemon.graph_report"],
        stdin=json.dumps([[dict(rows) for rows in rounds], at, rule, me]).encode(),
        capture_stdout=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class OverlayApi:
    """The overlay."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._reporting = trio.Lock()  # one process at a time, whoever asks

    async def members(self) -> list[dict[str, Any]]:
        """Every known member: id, name, state, addresses, whether it is a neighbour."""
        overlay = self._node.overlay
        return [self._member(member) for member in overlay.machine.table.members()]

    def _member(self, member: Member) -> dict[str, Any]:
        overlay, record = self._node.overlay, member.record
        state = self._node.session.view.state(record.peer_id)
        return {
            "peer": record.peer_id,
            "name": record.name,
            "state": str(member.state),
            "addresses": list(record.addresses),
            "incarnation": record.incarnation,
            "learner": record.learner,
            "part": record.part + 1 if record.part >= 0 else None,
            "self": record.peer_id == overlay.my_id,
            "neighbour": record.peer_id in overlay.links,
            **_certificate(record),
            "train": state.state if state is not None else None,
        }

    async def topology(self, graph: str = "", round: int = 0) -> dict[str, Any]:
        """The mixing graph as this peer computes it, its weights, and what it is worth for gossip.

        Of a round (default: the one under way); or, with `graph` = overlay, the graph of the links
        that carry the membership (default where nobody trains)."""
        node, hood = self._node, self._node.overlay.machine.graph
        which = graph or ("mixing" if hood.learners() else "overlay")
        if which not in ("mixing", "overlay"):
            raise RpcError(BAD_GRAPH, "bad_graph", f"{graph!r} is no graph: mixing or overlay")
        if not 0 <= round < 2**53:
            raise RpcError(BAD_GRAPH, "bad_graph", f"{round} is no round: they begin with 1")
        number = round or node.session.progress.round + 1
        posted = node.session.jobs.board.posted
        rule = posted.job.gossip.mixing if posted is not None else "metropolis"
        period = hood.topology.period if which == "mixing" else 1
        at = (number - 1) % period
        # The gap of a period is worked out of small graphs only; of a large one, the round will do.
        steps = range(period) if len(hood.members()) <= MAX_DENSE else (at,)
        rounds = [rows_of(hood, which, step + 1) for step in steps]
        figures = await self._reported(rounds, steps.index(at), rule, hood.me)
        believed = sum(not node.session.trust.blocks(peer) for peer in figures["weights"])
        table, choice = node.overlay.machine.table, hood.choice
        names = {peer: record.name for peer in rounds[0] if (record := table.get(peer))}
        return {
            "peer": hood.me,
            "graph": which,
            "topology": choice.name if which == "mixing" else "expander",
            "degree": choice.degree if which == "mixing" else 2 * MEMBERSHIP_RINGS,
            "round": number,
            **figures,
            "period": period,
            "robust": _robust(posted.job.robust, believed) if posted else None,
            "neighbours": sorted(figures["weights"]),
            "links": sorted(hood.wanted),
            "names": names,
        }

    async def _reported(self, rounds: list[Rows], at: int, rule: str, me: str) -> dict[str, Any]:
        with trio.move_on_after(REPORT_TIMEOUT_S):
            async with self._reporting:
                return await reported(rounds, at, rule, me)
        message = f"the graph of {len(rounds[0])} peers takes more than {REPORT_TIMEOUT_S:g} s"
        raise RpcError(BAD_GRAPH, "bad_graph", message)

    async def join(self, address: str) -> dict[str, Any]:
        """Become a member with a ticket, or link to the member at `address` (wss://host:port)."""
        if is_ticket(address):
            return await self._join_by_ticket(address)
        self._check_not_revoked()
        try:
            split_address(address)
        except ValueError as error:
            raise RpcError(BAD_ADDRESS, "bad_address", str(error)) from None
        try:
            with trio.fail_after(JOIN_TIMEOUT_S):
                peer = await self._node.overlay.join(address)
        except JoinFailed as error:
            message = f"{error}; is a gossipd running there?" if error.kind == "refused" else error
            raise RpcError(JOIN_FAILED, "join_failed", str(message), outcome=error.kind) from None
        except trio.TooSlowError:
            message = f"no answer from {address} within {JOIN_TIMEOUT_S:.0f} s"
            raise RpcError(JOIN_FAILED, "join_failed", message, outcome="unreachable") from None
        return {"peer": peer, "network": self._node.overlay.machine.network_id}

    def _check_not_revoked(self) -> None:
        node = self._node
        if node.is_revoked(node.overlay.my_id):
            raise _not_joined(
                "this peer was revoked: end it, and start it again with --join and a new ticket",
                why="revoked",
            )

    async def _join_by_ticket(self, text: str) -> dict[str, Any]:
        node = self._node
        try:
            ticket = read_ticket(text)
        except ValueError as error:
            raise RpcError(BAD_ADDRESS, "bad_address", str(error)) from None
        if ticket.network == node.credentials.network:
            return await self.join(ticket.addresses[0])
        if node.notary is None:
            raise _not_joined("this daemon has plain links (--insecure); start another without")
        if not node.session.may_adopt_network():
            raise _not_joined(
                f"this daemon belongs to network {short(node.credentials.network)} already; start"
                " another with another --data-dir"
            )
        try:
            tcp = Tcp(loopback_only=bool(node.config.lie.attack))
            await take_ticket(ticket, node.store, node.credentials, tcp)
        except Denied as error:
            raise _not_joined(f"the ticket is refused: {error}", why=error.kind) from None
        except Unreachable as error:
            raise _not_joined(str(error), outcome="unreachable") from None
        except StoreFailed as error:
            raise store_failed(error) from None
        node.restart()
        return {"peer": None, "network": ticket.network, "restarting": True}

    async def leave(self) -> dict[str, Any]:
        """Leave the network and end the daemon (the same as node.stop)."""
        self._node.stop()
        return {"leaving": True}
