"""The event stream: a websocket to /rpc, one event at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

from cli.client import NOT_ALLOWED, REFUSED, UNREACHABLE, ControlError, Target


def follow(target: Target, *, prefix: str, since: int | None) -> Iterator[dict[str, Any]]:
    """Events as they happen, until the daemon goes. Raises ControlError."""
    headers = target.headers()
    host = headers.pop("Host")
    params = {"prefix": prefix, **({} if since is None else {"since": since})}
    request = {"jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": params}
    with contextlib.closing(Websocket(target, host, headers)) as socket:
        socket.send(json.dumps(request))
        for text in socket:
            message = json.loads(text)
            if "error" in message:
                raise ControlError(REFUSED, message["error"]["message"])
            if message.get("method") == "event":
                yield message["params"]


class Websocket:
    """A blocking client websocket of text messages."""

    def __init__(self, target: Target, host: str, headers: dict[str, str]) -> None:
        self._target = target
        self._socket = target.connect()
        self._state = WSConnection(ConnectionType.CLIENT)
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._socket.sendall(self._state.send(Request(host, "/rpc", extra_headers=extra)))

    def send(self, text: str) -> None:
        """Send one message, after the handshake."""
        while True:
            for event in self._events():
                if isinstance(event, AcceptConnection):
                    self._socket.settimeout(None)  # the next event may be hours away
                    self._socket.sendall(self._state.send(TextMessage(text)))
                    return

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __iter__(self) -> Iterator[str]:
        text = ""
        while True:
            for event in self._events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        yield text
                        text = ""
                elif isinstance(event, CloseConnection):
                    return

    def _events(self) -> list[Any]:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise self._target.too_slow() from None
        except OSError as error:
            raise ControlError(UNREACHABLE, f"the daemon hung up: {error}") from None
        if not data:
            raise ControlError(UNREACHABLE, "the daemon hung up")
        self._state.receive_data(data)
        events = []
        for event in self._state.events():
            if isinstance(event, RejectConnection):
                exit_code = NOT_ALLOWED if event.status_code in (401, 403) else REFUSED
                message = f"the daemon refused the event stream (HTTP {event.status_code})"
                raise ControlError(exit_code, message)
            if isinstance(event, Ping):
                with contextlib.suppress(OSError):  # a lost daemon is the reader's to report
                    self._socket.sendall(self._state.send(event.response()))
            events.append(event)
        return events
