"""Who this peer is: its key, its certificate and its network's authority, as files in the data
directory.

    identity.pem    this peer's Ed25519 key and, in a network, its certificate chain (mode 0600)
    network.crt     the certificate of the network's authority
    authority.key   the authority's key: at the founder only (mode 0600)
    identity.next   the next key and its certificate, while a key is being changed (mode 0600)

Rules kept here:
- each file appears whole or not at all, and a certificate that does not fit the network beside it
  counts as none: `kill -9` at any instant leaves a peer that can start;
- the key never leaves this machine, and no error or log quotes it.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from overlay.certificates import (
    LIFETIME_S,
    BadCertificate,
    Certified,
    Chain,
    Role,
    authority_key,
    certify,
    check_chain,
    found_authority,
    from_pem,
    read_chain,
)
from overlay.certificates import to_pem as certificates_to_pem
from overlay.enrolment import Enrolled
from overlay.identity import id_of_key
from overlay.keys import key_id, new_key, read_key, to_pem, write_secret
from overlay.notary import Signing
from overlay.tls import Contexts, contexts


class Credentials:
    """One data directory's."""

    def __init__(self, folder: Path, *, lifetime_s: float = LIFETIME_S) -> None:
        """Reads what is there, and makes a key where there is none; certificates made here are
        valid for `lifetime_s`. Raises KeyUnusable or OSError."""
        self._folder = folder
        self._lifetime_s = lifetime_s
        self.chain: Chain = ()
        self.authority = b""
        self.authority_key = read_key(folder / "authority.key")
        key = read_key(folder / "identity.pem")
        self.key = key or new_key()
        if key is None:
            self._save_identity(self.key, ())
        else:
            self._read_membership()

    @property
    def peer_id(self) -> str:
        """This peer's id."""
        return key_id(self.key)

    @property
    def network(self) -> str:
        """The id of the network that this peer has a certificate of, '' without one."""
        return id_of_key(authority_key(self.authority)) if self.chain else ""

    @property
    def certified(self) -> Certified:
        """What this peer's certificate says."""
        return read_chain(self.chain)

    @property
    def may_enrol(self) -> bool:
        """Whether this peer may make members."""
        return bool(self.chain) and self.certified.role != "member"

    @property
    def is_founder(self) -> bool:
        """Whether this peer holds the authority's key."""
        return self.authority_key is not None

    def found(self) -> None:
        """Found a network: make its authority, and this peer its first member."""
        if self.authority_key is None:
            self.authority_key = new_key()
            write_secret(self._folder / "authority.key", to_pem(self.authority_key))
        self._join(Enrolled(found_authority(self.authority_key), ()))
        self.renew_own()

    def take(self, enrolled: Enrolled, *, key: Ed25519PrivateKey | None = None) -> None:
        """Become a member of another network, or of this one under a new key."""
        if self.authority_key is not None and key_id(self.authority_key) != enrolled.network:
            (self._folder / "authority.key").unlink(missing_ok=True)
            self.authority_key = None
        self.key = key or self.key
        self._join(enrolled)

    def prepare(self, key: Ed25519PrivateKey, chain: Chain) -> None:
        """Write the next key and its certificate down, to be turned to when the old id is out."""
        write_secret(self._folder / "identity.next", to_pem(key) + certificates_to_pem(*chain))

    def turn_over(self) -> bool:
        """Use the next key from now on; False if none was prepared. Raises KeyUnusable."""
        prepared = self._folder / "identity.next"
        key = read_key(prepared)
        if key is None:
            return False
        self.renew(from_pem(prepared.read_bytes()), key=key)
        prepared.unlink()
        return True

    def renew(self, chain: Chain, *, key: Ed25519PrivateKey | None = None) -> None:
        """Use a newer certificate from now on, and the new key that it is for."""
        key = key or self.key
        if read_chain(chain).peer_id != key_id(key):
            raise ValueError("a certificate of another key")
        self._save_identity(key, chain)
        self.key, self.chain = key, chain

    def renew_own(self) -> None:
        """The founder certifies itself anew."""
        self.renew(self.certify(self.key.public_key(), "founder"))

    def certify(self, key: Ed25519PublicKey, role: Role) -> Chain:
        """A certificate for somebody else. Raises ValueError if this peer may not appoint them."""
        return certify(
            key,
            role,
            issuer_key=self.authority_key or self.key,
            issuer=() if self.authority_key is not None else self.chain,
            authority=self.authority,
            lifetime_s=self._lifetime_s,
        )

    def signing(self) -> Signing:
        """The notary of this member."""
        return Signing(self.key, self.chain, self.authority)

    def contexts(self) -> Contexts:
        """What TLS shows and accepts for this member."""
        identity = self._folder / "identity.pem"
        return contexts(identity, identity, self.authority)

    def _join(self, enrolled: Enrolled) -> None:
        self.authority, self.chain = enrolled.authority, enrolled.chain
        write_secret(self._folder / "network.crt", certificates_to_pem(self.authority))
        self._save_identity(self.key, self.chain)

    def _save_identity(self, key: Ed25519PrivateKey, chain: Chain) -> None:
        text = to_pem(key) + certificates_to_pem(*chain)
        write_secret(self._folder / "identity.pem", text)

    def _read_membership(self) -> None:
        try:
            (self.authority,) = from_pem((self._folder / "network.crt").read_bytes())
            self.chain = from_pem((self._folder / "identity.pem").read_bytes())
            made = read_chain(self.chain)
            check_chain(self.chain, self.authority, made.begins_at)
            if made.peer_id == self.peer_id:
                return
        except (FileNotFoundError, ValueError, BadCertificate):
            pass
        self.chain = ()
