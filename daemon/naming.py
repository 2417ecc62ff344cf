"""Which peer a person means."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.refusals import UNKNOWN_PEER, RpcError
from daemon.running import Node
from overlay.identity import read_id


def peer_named(node: Node, word: str, *, besides: Iterable[str] = ()) -> str:
    """The id of the one known peer that is meant by an id (also spelled out), its beginning, or a
    name; `besides` are ids that need not be in the table. Raises RpcError (unknown_peer)."""
    records = node.overlay.machine.table.records()
    known = dict.fromkeys(besides, "") | {r.peer_id: r.name for r in records}
    try:
        word = read_id(word)
    except ValueError as error:
        if "mistyped" in str(error):
            raise RpcError(UNKNOWN_PEER, "unknown_peer", str(error)) from None
    # An id wins over a name, which anybody may take.
    found = [word] if word in known else [
        peer for peer, name in known.items() if word and (name == word or peer.startswith(word))
    ]  # fmt: skip
    if len(found) > 1:  # whoever has gone does not stand in the way of who is here
        table = node.overlay.machine.table
        found = [peer for peer in found if table.is_live(peer)] or found
    if len(found) != 1:
        reason = f"{len(found)} known peers are" if found else "no known peer is"
        message = f"{reason} called {word[:64]!r}; gossipctl members lists them"
        raise RpcError(UNKNOWN_PEER, "unknown_peer", message)
    return found[0]
