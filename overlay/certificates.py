"""Certificates (X.509, RFC 5280) of one network: who is a member, in which role, and until when.

A network is its certificate authority: the network's id is that of the authority's key. The founder
holds that key. It certifies members, and members of role issuer, who certify others in turn: an
issuer's certificate is an authority's of path length zero, so it appoints no further issuers.

Rules kept here:
- a certificate names the id of its key (common name) and its role (organizational unit); the id is
  computed from the key, never read;
- a chain is the member's certificate and, if an issuer made it, that issuer's: as DER, without the
  authority's own;
- nothing outlives who certified it, and everything begins `BACKDATED` ago, for clocks that are
  behind.
"""

from __future__ import annotations

import datetime
import functools
import warnings
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overlay.identity import short
from overlay.keys import key_id, public_bytes
from overlay.records import MAX_CHAIN

Role = Literal["founder", "issuer", "member"]
# By rank.
ROLES: tuple[Role, ...] = ("founder", "issuer", "member")
Chain = tuple[bytes, ...]

LIFETIME_S = 90 * 86400.0
AUTHORITY_YEARS = 20
BACKDATED = datetime.timedelta(hours=1)
# A member's certificate has about 400 bytes, and a chain two of them.
MAX_CERTIFICATE_BYTES = 2048


class BadCertificate(Exception):
    """A chain that does not make its owner a member; `kind` is stable: malformed, foreign (of
    another authority), expired, early (not valid yet)."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Certified:
    """What a valid chain says: times are Unix seconds; `issuers` are the ids of the members who
    certified this one (none: the authority itself)."""

    peer_id: str
    public_key: bytes
    role: Role
    begins_at: float
    expires_at: float
    issuers: tuple[str, ...]


def found_authority(key: Ed25519PrivateKey) -> bytes:
    """The self-signed certificate of a network's new authority: DER."""
    name = _name(key_id(key), "authority")
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=365 * AUTHORITY_YEARS)
    return _build(name, name, key.public_key(), key, now, end, path_length=1)


def certify(
    public_key: Ed25519PublicKey,
    role: Role,
    *,
    issuer_key: Ed25519PrivateKey,
    issuer: Chain,
    authority: bytes,
    lifetime_s: float = LIFETIME_S,
) -> Chain:
    """The chain of a new member. `issuer` is the chain of the issuing member, empty when
    `issuer_key` is the authority's. Raises ValueError if that one may not appoint this role."""
    if role != "member" and issuer:
        raise ValueError("only the network's founder appoints issuers")
    by = _load(issuer[0] if issuer else authority)
    now = datetime.datetime.now(datetime.UTC)
    end = min(now + datetime.timedelta(seconds=lifetime_s), by.not_valid_after_utc)
    path_length = None if role == "member" else 0
    name = _name(key_id(public_key), role)
    made = _build(name, by.subject, public_key, issuer_key, now, end, path_length=path_length)
    return (made, *issuer)


def check_chain(chain: Chain, authority: bytes, now: float) -> Certified:
    """What the chain says of its owner at Unix time `now`. Raises BadCertificate."""
    found = _verified(chain, authority)
    if now >= found.expires_at:
        raise BadCertificate("expired", f"the certificate of {short(found.peer_id)} has expired")
    if now < found.begins_at:
        raise BadCertificate(
            "early", f"the certificate of {short(found.peer_id)} is not valid yet: compare clocks"
        )
    return found


@functools.lru_cache(maxsize=4096)
def read_chain(chain: Chain) -> Certified:
    """What a chain says, unverified: for one that was checked before. Raises BadCertificate."""
    return _read(_parsed_chain(chain))


def request(key: Ed25519PrivateKey) -> bytes:
    """A certificate signing request (PKCS #10, RFC 2986), DER: proves that the key is held."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(key_id(key), "member"))
    return builder.sign(key, None).public_bytes(serialization.Encoding.DER)


def read_request(der: bytes) -> Ed25519PublicKey:
    """The public key of a signing request. Raises BadCertificate (malformed)."""
    try:
        found = x509.load_der_x509_csr(der)
        key = found.public_key()
        if found.is_signature_valid and isinstance(key, Ed25519PublicKey):
            return key
    except Exception:  # the parser has many ways to say that bytes are nonsense
        pass
    raise BadCertificate("malformed", "that is no signing request for an Ed25519 key")


def authority_key(authority: bytes) -> bytes:
    """The raw public key, 32 bytes, of an authority's certificate (DER), whose hash is the
    network's id. Raises BadCertificate."""
    certificate = _parsed(authority)
    try:
        key = certificate.public_key()
        certificate.verify_directly_issued_by(certificate)
        if isinstance(key, Ed25519PublicKey) and _path_length(certificate) is not None:
            return public_bytes(key)
    except Exception:  # the parser reads parts only when they are asked for
        pass
    raise BadCertificate("malformed", "that is no certificate of an authority")


def to_pem(*certificates: bytes) -> bytes:
    """DER certificates as one PEM text."""
    loaded = [_load(der) for der in certificates]
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in loaded)


def from_pem(text: bytes) -> Chain:
    """The DER certificates of a PEM text. Raises ValueError."""
    found = x509.load_pem_x509_certificates(text)
    return tuple(one.public_bytes(serialization.Encoding.DER) for one in found)


@functools.lru_cache(maxsize=4096)
def _verified(chain: Chain, authority: bytes) -> Certified:
    """The chain's word, its signatures checked: once, for records come again and again."""
    parsed = _parsed_chain(chain)
    for below, above in zip(parsed, (*parsed[1:], _load(authority)), strict=True):
        try:
            below.verify_directly_issued_by(above)
        except Exception:  # no signature of theirs, or of a kind that the parser does not know
            raise BadCertificate("foreign", "certified by another network's authority") from None
    if any(_path_length(above) is None for above in parsed[1:]):
        raise BadCertificate("foreign", "certified by a member that may not certify anybody")
    found = _read(parsed)
    if found.role != "member" and len(parsed) > 1:
        raise BadCertificate("foreign", "an issuer appointed by an issuer")
    return found


def _read(parsed: tuple[x509.Certificate, ...]) -> Certified:
    try:
        return _said(parsed)
    except BadCertificate:
        raise
    except Exception:  # the parser reads parts only when they are asked for
        raise BadCertificate("malformed", "that is no certificate") from None


def _said(parsed: tuple[x509.Certificate, ...]) -> Certified:
    leaf = parsed[0]
    key = leaf.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise BadCertificate("malformed", "a certificate of another kind of key")
    units = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    role = next((role for role in ROLES if [str(unit.value) for unit in units] == [role]), None)
    if role is None or (_path_length(leaf) is None) != (role == "member"):
        raise BadCertificate("malformed", "a certificate without a role")
    issuers = []
    for above in parsed[1:]:
        their_key = above.public_key()
        if not isinstance(their_key, Ed25519PublicKey):
            raise BadCertificate("malformed", "a certificate of another kind of key")
        issuers.append(key_id(their_key))
    return Certified(
        key_id(key),
        public_bytes(key),
        role,
        max(one.not_valid_before_utc.timestamp() for one in parsed),
        min(one.not_valid_after_utc.timestamp() for one in parsed),
        tuple(issuers),
    )


def _path_length(certificate: x509.Certificate) -> int | None:
    """How many authorities may follow below; None for a certificate that certifies nobody."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    return found.path_length if found.ca else None


def _parsed_chain(chain: Chain) -> tuple[x509.Certificate, ...]:
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise BadCertificate("malformed", "a chain has one or two certificates")
    return tuple(_parsed(der) for der in chain)


def _parsed(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise BadCertificate("malformed", "a certificate of more than 2 KiB")
    try:
        return _load(der)
    except Exception:  # the parser has many ways to say that bytes are nonsense
        raise BadCertificate("malformed", "that is no certificate") from None


def _load(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # A serial number below 1 (RFC 5280, section 4.1.2.2) is taken with a warning for now.
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(der)


def _name(identity: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, identity),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        ]
    )


def _build(
    name: x509.Name,
    issuer: x509.Name,
    public_key: Ed25519PublicKey,
    issuer_key: Ed25519PrivateKey,
    now: datetime.datetime,
    end: datetime.datetime,
    *,
    path_length: int | None,
) -> bytes:
    """`path_length` None: one that certifies nobody."""
    may_issue = path_length is not None
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=may_issue,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=may_issue, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if path_length != 1:  # all but the authority itself speak on links
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    made = builder.sign(issuer_key, None)
    return made.public_bytes(serialization.Encoding.DER)
