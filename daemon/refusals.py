"""What the control API refuses with: an exception, and its own error codes.

docs/control-api.md says what each code means; their meaning never changes.
"""

from __future__ import annotations

from typing import Any

from daemon.store import StoreFailed

# Application errors: JSON-RPC leaves -32000 to -32099 to servers.
NOT_TRAINING = -32001
JOIN_FAILED = -32002
JOB_INVALID = -32003
LEARNER_FAILED = -32004
NEEDS_WEBSOCKET = -32005
BAD_ADDRESS = -32006
BAD_PATH = -32007
STORE_FAILED = -32008
BAD_GRAPH = -32009
UNKNOWN_PEER = -32010
NETWORK_REFUSED = -32011
NOT_ALLOWED = -32020
TOO_MANY_SUBSCRIPTIONS = -32021


class RpcError(Exception):
    """A refusal with a stable `code` and `kind`, worded for people."""

    def __init__(self, code: int, kind: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind
        self.data = {"kind": kind, **data}


def store_failed(error: StoreFailed) -> RpcError:
    """The disk did not take what was asked for; `disk_full` where it is that."""
    return RpcError(STORE_FAILED, error.kind.replace(".", "_"), str(error))
