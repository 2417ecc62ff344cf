"""Networks for tests: an authority, and members that it certified, with what TLS needs."""

from dataclasses import dataclass
from pathlib import Path

from overlay.certificates import LIFETIME_S, Chain, certify, found_authority
from overlay.certificates import to_pem as certificates_to_pem
from overlay.identity import id_of_key
from overlay.keys import key_id, new_key, public_bytes, to_pem, write_secret
from overlay.tls import Contexts, contexts


@dataclass(frozen=True)
class Certificated:
    """A key with a certificate."""

    key: object
    chain: Chain
    contexts: Contexts

    @property
    def peer_id(self):
        return key_id(self.key)


class Authority:
    """One network's; key files go into `folder`."""

    def __init__(self, folder):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.key = new_key()
        self.certificate = found_authority(self.key)
        self.network = id_of_key(public_bytes(self.key))

    def certify(self, public_key, role="member", *, by=None, lifetime_s=LIFETIME_S):
        """The chain of `public_key`, certified by member `by` or the authority itself."""
        return certify(
            public_key,
            role,
            issuer_key=by.key if by else self.key,
            issuer=by.chain if by else (),
            authority=self.certificate,
            lifetime_s=lifetime_s,
        )

    def member(self, role="member", *, by=None, lifetime_s=LIFETIME_S):
        """Somebody new; a negative `lifetime_s` makes a certificate that has expired."""
        key = new_key()
        chain = self.certify(key.public_key(), role, by=by, lifetime_s=lifetime_s)
        file = self._folder / f"{key_id(key)}.pem"
        write_secret(file, to_pem(key) + certificates_to_pem(*chain))
        return Certificated(key, chain, contexts(file, file, self.certificate))
