"""How a starting daemon gets into its network: it has been a member, it has a ticket, or it founds
one of its own.

Rules kept here:
- without a certificate there are no links, except plain ones on loopback that were asked for
  (`overlay.insecure`); a data directory stays with the kind of network that it began in;
- a ticket that was redeemed is only an address from then on, so that a command line can stay as it
  is across restarts;
- who cannot be a member is told what to do, before anything is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from daemon.config import Config
from daemon.credentials import Credentials
from daemon.store import Store
from overlay.enrolment import Denied, Enrolled, Unreachable, enrol
from overlay.identity import new_id, short
from overlay.keys import new_key
from overlay.tickets import Ticket, is_ticket, read_ticket
from overlay.transport import Tcp

log = logging.getLogger("gossipd")

# A ticket's issuer may come up a little later than the newcomer, as after a power failure.
PATIENCE_S = 60.0
RETRY_S = 1.0
ANOTHER = "use another --data-dir"


class CannotEnter(Exception):
    """This peer is in no network; the message says why and what to do."""


async def enter(config: Config, store: Store, credentials: Credentials, tcp: Tcp) -> str:
    """Make this peer a member of the network that it was asked to be in; the network's id, '' for a
    peer of plain links that was told to join one. Raises CannotEnter or StoreFailed."""
    if config.overlay.insecure:
        return _plain(config, store, credentials)
    tickets = [read_ticket(word) for word in config.overlay.join if is_ticket(word)]
    wanted = {ticket.network for ticket in tickets}
    if len(wanted) > 1:
        raise CannotEnter("the tickets are of different networks: join one of them")
    if wanted and wanted != {credentials.network}:
        if wanted != {store.get("network")}:
            _check_free(store, credentials)
        await _enrol(tickets[0], store, credentials, tcp)
    elif not credentials.chain:
        _found(config, store, credentials)
    elif _is_revoked(store, credentials):
        # With a next key it was killed while it changed keys, and is not out.
        if not credentials.turn_over() and not await _come_back(tickets, store, credentials, tcp):
            log.warning("this peer was revoked: it has no links; ask for a new ticket")
    elif credentials.is_founder:
        if time.time() >= credentials.certified.expires_at:
            credentials.renew_own()
    elif time.time() >= credentials.certified.expires_at:
        if not tickets:
            raise CannotEnter(
                "this peer's certificate has expired: ask an issuer for a ticket (gossipctl"
                " invite) and start with --join TICKET"
            )
        await _enrol(tickets[0], store, credentials, tcp)
    return credentials.network


def seeds(words: Iterable[str], store: Store) -> tuple[str, ...]:
    """Whom to dial first: the addresses among `words` and in the tickets among them; while nobody
    else is known, those of the ticket that was redeemed last too."""
    found: list[str] = []
    for word in words:
        found += read_ticket(word).addresses if is_ticket(word) else (word,)
    if not store.members():
        found += store.get("seeds").split()
    return tuple(dict.fromkeys(found))


async def take_ticket(
    ticket: Ticket,
    store: Store,
    credentials: Credentials,
    tcp: Tcp,
    *,
    key: Ed25519PrivateKey | None = None,
) -> None:
    """Redeem a ticket and belong to its network, under a new `key` if one is given. Raises Denied
    or Unreachable."""
    enrolled: Enrolled = await enrol(tcp, ticket, key or credentials.key)
    if enrolled.network != (credentials.network or store.get("network")):
        store.forget_network()
    credentials.take(enrolled, key=key)
    store.put({"network": enrolled.network, "seeds": " ".join(ticket.addresses)})
    log.info("this peer is a member of network %s", short(enrolled.network))


def _plain(config: Config, store: Store, credentials: Credentials) -> str:
    if credentials.chain:
        raise CannotEnter(
            f"this data directory belongs to network {short(credentials.network)}, whose links are"
            f" encrypted: leave --insecure out, or {ANOTHER}"
        )
    network = store.get("network")
    return network or ("" if config.overlay.join else new_id())


def _found(config: Config, store: Store, credentials: Credentials) -> None:
    if store.get("network"):
        raise CannotEnter(
            "this data directory has no certificate of its network: if its links were plain, add"
            f" --insecure; else ask for a ticket and add --join TICKET; or {ANOTHER}"
        )
    if config.overlay.join:
        raise CannotEnter(
            "to join a network this peer needs a ticket: ask one of its issuers for one (gossipctl"
            " invite) and start with --join TICKET; or, between daemons of this machine, use plain"
            " links with --insecure"
        )
    credentials.found()
    log.info("founded network %s", short(credentials.network))


def _check_free(store: Store, credentials: Credentials) -> None:
    """A peer that is alone may leave its network for another."""
    if store.members() or store.get("job_offer") or store.get("job"):
        mine = short(credentials.network or store.get("network"))
        raise CannotEnter(
            f"this data directory belongs to network {mine}, not to the ticket's: {ANOTHER}"
        )


def _is_revoked(store: Store, credentials: Credentials) -> bool:
    return store.is_revoked(credentials.peer_id)


async def _come_back(
    tickets: list[Ticket], store: Store, credentials: Credentials, tcp: Tcp
) -> bool:
    """A revoked peer with a new ticket starts over under a new key."""
    if credentials.authority_key is not None:  # the founder needs nobody
        key = new_key()
        credentials.renew(credentials.certify(key.public_key(), "founder"), key=key)
        return True
    if not tickets:
        return False
    try:
        await take_ticket(tickets[0], store, credentials, tcp, key=new_key())
    except (Denied, Unreachable) as error:
        log.warning("this peer was revoked, and its ticket does not help: %s", error)
        return False
    return True


async def _enrol(ticket: Ticket, store: Store, credentials: Credentials, tcp: Tcp) -> None:
    ends = trio.current_time() + PATIENCE_S
    while True:
        try:
            return await take_ticket(ticket, store, credentials, tcp)
        except Denied as error:
            raise CannotEnter(f"the ticket is refused: {error}") from None
        except Unreachable as error:
            if trio.current_time() > ends:
                raise CannotEnter(str(error)) from None
            log.warning("%s; trying again", error)
            await trio.sleep(RETRY_S)
