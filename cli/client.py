"""A JSON-RPC client of the control API, from the standard library only.

Speaks HTTP to the Unix socket, or to a TCP port with a bearer token. Every way to fail is one
exception with the exit code that `gossipctl` ends with.

Beyond this machine a token travels only over TLS, and only to a server whose certificate was
verified; nothing switches that off.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

REFUSED, USAGE, UNREACHABLE, NOT_ALLOWED, TIMED_OUT = 1, 2, 3, 4, 5


class ControlError(Exception):
    """A call that came to nothing. `exit_code` is gossipctl's; `data` is the daemon's, if any."""

    def __init__(self, exit_code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.data = data


@dataclass(frozen=True, slots=True)
class Target:
    """Where the daemon is: a Unix socket, or `http(s)://host:port` with a token file.

    `ca_file` (PEM) says whom to trust for https; None: the system's authorities.
    """

    socket_path: Path
    url: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = 30.0

    def connect(self) -> socket.socket:
        """A connected stream socket. Raises ControlError."""
        try:
            if self.url:
                return self._connect_tcp()
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(self.timeout_s)
                sock.connect(str(self.socket_path))
            except BaseException:
                sock.close()
                raise
        except TimeoutError:
            raise self.too_slow() from None
        except ssl.SSLCertVerificationError as error:
            hint = "name the certificate of its authority, or its own, with --ca-file"
            message = f"{self.url} is not trusted ({error.verify_message}); {hint}"
            raise ControlError(NOT_ALLOWED, message) from None
        except PermissionError:
            message = f"no permission to use {self.socket_path}; it belongs to another user"
            raise ControlError(NOT_ALLOWED, message) from None
        except OSError as error:
            where = self.url or self.socket_path
            hint = "is gossipd running? start it with 'gossipd start', or name its --data-dir"
            raise ControlError(UNREACHABLE, f"no daemon at {where} ({error}); {hint}") from None
        return sock

    def _connect_tcp(self) -> socket.socket:
        parts = self._parts()
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        context = self._tls_context() if is_tls else None
        address = (host, parts.port or (443 if is_tls else 80))
        sock = socket.create_connection(address, timeout=self.timeout_s)
        if context is None:
            return sock
        try:
            return context.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            message = (
                f"{self.url!r} is no address; write http://127.0.0.1:PORT or https://HOST:PORT"
            )
            raise ControlError(USAGE, message)
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            message = f"{self.url} would carry the token in the clear; write https://HOST:PORT"
            raise ControlError(USAGE, message)
        return parts

    def _tls_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            message = f"cannot read the certificates in {self.ca_file}: {error}"
            raise ControlError(USAGE, message) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def headers(self) -> dict[str, str]:
        """The headers of a request, with the token where one is needed."""
        if not self.url:
            return {"Host": "localhost"}
        headers = {"Host": urlsplit(self.url).netloc}
        if self.token_file is not None:
            try:
                token = self.token_file.read_text().strip()
            except OSError as error:
                raise ControlError(NOT_ALLOWED, f"cannot read the token: {error}") from None
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def too_slow(self) -> ControlError:
        """The error for a daemon that does not answer in time."""
        return ControlError(TIMED_OUT, f"no answer within {self.timeout_s:g} s")


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that is already connected."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = sock


def call(target: Target, method: str, params: dict[str, Any] | list[Any] | None = None) -> Any:
    """The result of one method. Raises ControlError, also for an error response."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    text = post(target, json.dumps(request))
    try:
        response = json.loads(text)
        if "error" in response:
            error = response["error"]
            data = error.get("data")
            kind = data.get("kind") if isinstance(data, dict) else None
            exit_code = NOT_ALLOWED if kind == "not_allowed" else REFUSED
            raise ControlError(exit_code, error["message"], data)
        return response["result"]
    except (ValueError, TypeError, KeyError):
        raise ControlError(UNREACHABLE, "who answers there is no gossipd") from None


def post(target: Target, body: str) -> str:
    """The response text to a raw JSON-RPC request text. Raises ControlError."""
    headers = {"Content-Type": "application/json", **target.headers()}
    connection = _Connection(target.connect())
    try:
        connection.request("POST", "/rpc", body=body.encode(), headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
    except TimeoutError:
        raise target.too_slow() from None
    except (OSError, http.client.HTTPException) as error:
        raise ControlError(UNREACHABLE, f"the daemon hung up: {error}") from None
    finally:
        connection.close()
    if response.status in (401, 403):
        raise ControlError(NOT_ALLOWED, text.strip())
    if response.status not in (200, 204):
        raise ControlError(REFUSED, f"HTTP {response.status}: {text.strip()}")
    return text


def _is_loopback(host: str) -> bool:
    # overlay.transport has the same, but importing it costs every call of gossipctl 100 ms.
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
