"""Mutual TLS 1.3 (RFC 8446) under the websockets, from the standard library's ssl.

Rules kept here:
- both ends verify the other's certificate by the network's authority; ids are compared instead of
  host names, by whoever asked for the connection;
- an incoming connection may come without a certificate: it then has no peer id, and reaches
  enrolment alone; a certificate of another authority, or an expired one, ends it;
- no session is resumed: every connection proves its certificate anew.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from overlay.alerts import alert_of
from overlay.certificates import BadCertificate, read_chain
from overlay.transport import HANDSHAKE_S, HandshakeFailed, Line, StreamHandler, Tcp

# Who is refused may take so long to hear why.
ALERT_S = 1.0


@dataclass(slots=True)
class Contexts:
    """What this peer shows and accepts; replaced when its certificate is renewed."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def contexts(key_file: Path, chain_file: Path, authority: bytes) -> Contexts:
    """For the holder of a certificate (PEM files); `authority` is DER."""
    made = Contexts(_context(ssl.PROTOCOL_TLS_SERVER), _context(ssl.PROTOCOL_TLS_CLIENT))
    for context in (made.server, made.client):
        context.load_verify_locations(cadata=authority)
        context.load_cert_chain(chain_file, key_file)
    made.server.verify_mode = ssl.CERT_OPTIONAL  # without one there is enrolment
    made.client.verify_mode = ssl.CERT_REQUIRED
    made.server.num_tickets = 0
    return made


def stranger(authority: bytes | None) -> ssl.SSLContext:
    """For a dialler that has no certificate yet; without an `authority` it verifies nobody, and
    must not say anything that others may not hear."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE if authority is None else ssl.CERT_REQUIRED
    if authority is not None:
        context.load_verify_locations(cadata=authority)
    return context


class Tls:
    """The network of a peer that has a certificate."""

    secured = True

    def __init__(self, tcp: Tcp, contexts: Contexts) -> None:
        self._tcp = tcp
        self.contexts = contexts

    async def connect(self, address: str) -> Line:
        plain = await self._tcp.connect(address)
        line = await shake_hands(plain.stream, self.contexts.client, server_side=False)
        if not line.peer_id:
            await trio.aclose_forcefully(line.stream)
            raise HandshakeFailed(f"{address} shows no certificate")
        return line

    async def welcome(self, stream: trio.abc.Stream) -> Line:
        return await shake_hands(stream, self.contexts.server, server_side=True)

    async def listen(
        self, address: str, handler: StreamHandler, task_status: trio.TaskStatus[str]
    ) -> None:
        await self._tcp.listen(address, handler, task_status, scheme="wss")


async def shake_hands(
    stream: trio.abc.Stream, context: ssl.SSLContext, *, server_side: bool
) -> Line:
    """TLS over a connected stream. Raises HandshakeFailed, and closes the stream then."""
    secure = trio.SSLStream(stream, context, server_side=server_side, https_compatible=True)
    try:
        with trio.fail_after(HANDSHAKE_S):
            await secure.do_handshake()
        certificate = secure.getpeercert(binary_form=True)
        peer_id = read_chain((certificate,)).peer_id if certificate is not None else ""
        return Line(secure, peer_id, certificate or b"")
    except BaseException as error:
        try:
            if server_side and alert_of(error):
                await _send_alert(secure, stream)
        finally:
            await trio.aclose_forcefully(stream)
        match error:
            case trio.TooSlowError():
                raise HandshakeFailed("no TLS handshake in time") from None
            case trio.BrokenResourceError() | trio.ClosedResourceError():
                raise HandshakeFailed(alert_of(error) or "broke off the TLS handshake") from None
            case BadCertificate():
                raise HandshakeFailed(str(error)) from None
            case _:
                raise


async def _send_alert(secure: trio.SSLStream[trio.abc.Stream], stream: trio.abc.Stream) -> None:
    """Let the other side hear what is wrong with it: trio keeps the alert that OpenSSL wrote, and
    closing while bytes wait to be read would take it back on its way."""
    with trio.move_on_after(ALERT_S), suppress(trio.BrokenResourceError):
        await stream.send_all(secure._outgoing.read())
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some():
            pass


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    return context
