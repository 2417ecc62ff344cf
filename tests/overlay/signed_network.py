"""Members of a network that is certified and signed, with fixed keys; and certificates as no
honest member would make them."""

import datetime
import functools
import hashlib
import time
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from overlay.certificates import Chain, certify, found_authority
from overlay.identity import id_of_key
from overlay.keys import key_id, public_bytes
from overlay.notary import Signing, seal
from overlay.records import SIGNATURE_BYTES, Fate, Record, State, Vote
from overlay.revocation import Revocation
from overlay.wire import Evidence


def fixed_key(name):
    """The key that goes by a name in tests."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"test {name}".encode()).digest())


@dataclass(frozen=True)
class Person:
    """A member, or who pretends to be one."""

    key: Ed25519PrivateKey
    chain: Chain
    notary: Signing
    record: Record

    @property
    def id(self):
        return self.record.peer_id

    def says(self, **changes):
        """Its record with changes, signed."""
        fields = {name: getattr(self.record, name) for name in Record.__slots__}
        return self.notary.record(Record(**{**fields, **changes}))

    def vote(self, subject, *, incarnation=1, hard=False):
        signature = self.notary.testimony(subject, incarnation, hard)
        return Vote(self.id, incarnation, hard, signature)

    def testimony(self, subject, *, incarnation=1, hard=False):
        signature = self.notary.testimony(subject, incarnation, hard)
        return Evidence(subject, incarnation, self.id, hard, signature)

    def goodbye(self, *, incarnation=1):
        return Fate(self.id, incarnation, State.LEFT, self.notary.goodbye(incarnation))


class SignedNetwork:
    """An authority, and whom it certifies."""

    def __init__(self, name="network"):
        self.name = name
        self.key = fixed_key(f"authority of {name}")
        self.authority = found_authority(self.key)
        self.id = key_id(self.key)

    @functools.cache  # noqa: B019 (it lives as long as the tests)
    def person(self, number, role="member", *, issuer=None):
        """Member `number`, certified by the authority or by another person."""
        key = fixed_key(f"{number} {role}")
        chain = certify(
            key.public_key(),
            role,
            issuer_key=issuer.key if issuer else self.key,
            issuer=issuer.chain if issuer else (),
            authority=self.authority,
        )
        return self.with_chain(number, key, chain)

    def with_chain(self, number, key, chain):
        """Who holds this key and shows this chain."""
        notary = Signing(key, chain, self.authority)
        identity = id_of_key(public_bytes(key))
        record = Record(identity, f"peer{number}", (f"ws://peer{number}:1",), 1, True, -1)
        return Person(key, chain, notary, notary.record(record))

    def revocation(self, peer_id, reason="", *, at=None):
        """The authority's own."""
        at = int(time.time()) if at is None else at
        unsigned = Revocation(peer_id, at, reason, (), bytes(SIGNATURE_BYTES))
        return seal(unsigned, self.key, self.id, chain=())


def forge(
    key,
    *,
    by_key,
    by,
    role="member",
    ca=False,
    path_length=None,
    begins_s=-3600.0,
    ends_s=86400.0,
    common_name=None,
    constrained=True,
):
    """A certificate (DER) of the public key `key`, signed with `by_key` in the name of the
    certificate `by`, without asking whether it may; times count from now."""
    now = datetime.datetime.now(datetime.UTC)
    units = [role] if isinstance(role, str) else role
    name = [x509.NameAttribute(NameOID.COMMON_NAME, common_name or "anybody")]
    name += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(name))
        .issuer_name(x509.load_der_x509_certificate(by).subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=begins_s))
        .not_valid_after(now + datetime.timedelta(seconds=ends_s))
    )
    if constrained:
        constraints = x509.BasicConstraints(ca=ca, path_length=path_length)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(by_key, None).public_bytes(serialization.Encoding.DER)
