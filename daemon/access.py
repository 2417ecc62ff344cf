"""Who may call the control API: tokens, host names, and no web page.

Rules kept here:
- the Unix socket is its owner's and asks for no token; TCP asks for one of two, and a token is
  compared in constant time with both, whichever it is;
- a web page is no client of ours: what a browser adds to a request is refused everywhere, and on
  TCP so are host names that were not expected (DNS rebinding) and bodies that are not called JSON
  (which a page may send without asking);
- a token appears in its file and in requests, nowhere else.
"""

from __future__ import annotations

import enum
import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overlay.addresses import is_loopback

# RFC 6454, and Fetch Metadata (https://www.w3.org/TR/fetch-metadata/); no page can leave the
# second out or change it.
OF_BROWSERS = (b"origin", b"sec-fetch-site")


class Right(enum.Enum):
    """What a caller may do."""

    ADMIN = "admin"
    READ_ONLY = "read-only"


class NotAdmitted(Exception):
    """A request that is refused before its body is read."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Tokens:
    """The two bearer tokens of the TCP port."""

    admin: str = field(repr=False)
    read_only: str = field(repr=False)

    def right(self, authorization: bytes) -> Right | None:
        """What an Authorization header gives, None for nothing."""
        scheme, _, sent = authorization.partition(b" ")
        is_admin = hmac.compare_digest(sent, self.admin.encode())
        is_reader = hmac.compare_digest(sent, self.read_only.encode())
        if scheme.lower() != b"bearer":
            return None
        return Right.ADMIN if is_admin else Right.READ_ONLY if is_reader else None


@dataclass(frozen=True, slots=True)
class Access:
    """The rule of one listener; without tokens it is the Unix socket's."""

    tokens: Tokens | None = None
    hosts: frozenset[str] = frozenset()
    loopback_names: bool = False

    def admit(self, scope: dict[str, Any]) -> Right:
        """What the caller may do. Raises NotAdmitted."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if any(name in headers for name in OF_BROWSERS):
            raise NotAdmitted(403, "requests from web pages are refused\n")
        if self.tokens is None:
            return Right.ADMIN
        if not self._is_ours(headers.get(b"host", b"")):
            raise NotAdmitted(403, "requests for a foreign host name are refused\n")
        right = self.tokens.right(headers.get(b"authorization", b""))
        if right is None:
            hint = "send the header 'Authorization: Bearer TOKEN' (see control.token)\n"
            raise NotAdmitted(401, hint)
        if scope["type"] == "http" and scope["method"] == "POST":
            media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if media_type != b"application/json":
                raise NotAdmitted(415, "send the header 'Content-Type: application/json'\n")
        return right

    def _is_ours(self, host_header: bytes) -> bool:
        name = host_name(host_header.decode("latin-1"))
        return name in self.hosts or (self.loopback_names and is_loopback(name))


def access_over_tcp(host: str, *, names: Iterable[str], tokens: Tokens) -> Access:
    """The rule for a listener bound to `host` that is also reached by `names`."""
    hosts = frozenset(host_name(name) for name in (*names, host))
    return Access(tokens, hosts, loopback_names=is_loopback(host))


def host_name(text: str) -> str:
    """The name in a Host header ('name', 'name:port', '[address]:port'), small and bare."""
    if text.count(":") > 1 and not text.startswith("["):
        return text.lower()  # an IPv6 address as the configuration writes it
    name = text if text.endswith("]") or ":" not in text else text[: text.rfind(":")]
    return name.strip("[]").lower()


def read_tokens(admin: Path, read_only: Path) -> Tokens:
    """The tokens in the two files, made where absent. Raises PermissionError."""
    tokens = Tokens(read_token(admin), read_token(read_only))
    if tokens.admin == tokens.read_only:
        message = f"{admin} and {read_only} hold the same token; remove one, and another is made"
        raise PermissionError(message)
    return tokens


def read_token(path: Path) -> str:
    """The bearer token in `path`, made (mode 0600) if the file is not there.

    Raises PermissionError if others may read the file, or if it is empty.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        check_private(path)
        if not (token := path.read_text().strip()):
            # An empty token would let everybody in.
            raise PermissionError(f"{path} is empty; remove it, and a token is made") from None
        return token
    with os.fdopen(descriptor, "w") as file:
        token = secrets.token_urlsafe(32)
        file.write(token + "\n")
    return token


def check_private(path: Path) -> None:
    """Raises PermissionError if others may read a file that holds a secret."""
    if path.stat().st_mode & 0o077:
        raise PermissionError(f"{path} is readable by others; run: chmod 600 {path}")
