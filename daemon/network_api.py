"""The control API's methods about membership: inviting, revoking, changing keys."""

from __future__ import annotations

from typing import Any

from daemon.naming import peer_named
from daemon.office import InvitationRefused
from daemon.refusals import NETWORK_REFUSED, RpcError, store_failed
from daemon.renewal import NotRenewed, rotate
from daemon.running import Node
from daemon.store import StoreFailed
from overlay.certificates import Role, read_chain
from overlay.identity import read_id, spelled
from overlay.notary import seal
from overlay.revocation import MAX_REASON

PLAIN = "this network has plain links (--insecure), which anybody on this machine can join"


class NetworkApi:
    """Who is in the network."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def invite(
        self, ttl_s: float = 3600.0, uses: int = 1, role: str = "member"
    ) -> dict[str, Any]:
        """A ticket with which `uses` peers can join within `ttl_s` seconds, as member or issuer."""
        node = self._node
        if node.office is None:
            raise _refused(PLAIN)
        wanted: Role = "issuer" if role == "issuer" else "member"
        if role not in ("member", "issuer"):
            raise _refused(f"{role[:40]!r} is no role: member or issuer")
        try:
            text, ticket = await node.office.invite(
                node.overlay.machine.table.me.addresses, ttl_s=ttl_s, uses=uses, role=wanted
            )
        except InvitationRefused as error:
            raise _refused(str(error)) from None
        except StoreFailed as error:
            raise store_failed(error) from None
        return {
            "ticket": text,
            "network": ticket.network,
            "addresses": list(ticket.addresses),
            "expires_at": ticket.expires_at,
            "uses": uses,
            "role": wanted,
        }

    async def revoke(self, peer: str, reason: str = "") -> dict[str, Any]:
        """Put a member (by id, its beginning, or name) out of the network, for good."""
        node = self._node
        credentials, notary = node.credentials, node.notary
        if notary is None:
            raise _refused(PLAIN)
        if not credentials.may_enrol:
            raise _refused("only the founder and issuers revoke: ask one of them")
        if len(reason) > MAX_REASON or not reason.isprintable():
            raise _refused(f"the reason must be printable, {MAX_REASON} characters at most")
        # The founder may put out somebody whom the members have forgotten: that key still signs.
        out = peer_named(node, peer, besides=_id_in(peer) if credentials.is_founder else ())
        record = node.overlay.machine.table.get(out)
        if out == node.overlay.my_id:
            raise _refused("to put this peer itself out, end it: gossipctl leave")
        if credentials.authority_key is not None:
            unsigned = notary.revocation(out, reason)
            revocation = seal(unsigned, credentials.authority_key, notary.network, chain=())
        else:
            assert record is not None, "only the founder puts strangers out"
            if read_chain(record.chain).role != "member":
                raise _refused("only the network's founder revokes issuers")
            revocation = notary.revocation(out, reason, record.chain)
        if not notary.may_revoke(revocation):
            raise _refused("this peer's certificate is not valid now: compare clocks")
        try:
            await node.put_out(revocation)
        except StoreFailed as error:
            raise store_failed(error) from None
        return {"revoked": out, "name": record.name if record else "", "reason": reason}

    async def rotate(self) -> dict[str, Any]:
        """Change this peer's key: the daemon starts over under a new id, in the same network."""
        node = self._node
        if node.notary is None:
            raise _refused(PLAIN)
        old = node.overlay.my_id
        try:
            new = await rotate(node)
        except (NotRenewed, OSError) as error:
            raise _refused(f"nobody certifies the new key: {error}") from None
        except StoreFailed as error:
            raise store_failed(error) from None
        return {"before": old, "peer": new, "spelled": spelled(new), "restarting": True}


def _refused(message: str) -> RpcError:
    return RpcError(NETWORK_REFUSED, "network_refused", message)


def _id_in(word: str) -> tuple[str, ...]:
    """The id that a word is, if it is one."""
    try:
        return (read_id(word),)
    except ValueError:
        return ()
