"""Who is a member: chains as they should be, and as nobody should make them."""

import contextlib
import datetime
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x448
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.certificates import (
    BACKDATED,
    LIFETIME_S,
    MAX_CERTIFICATE_BYTES,
    BadCertificate,
    authority_key,
    certify,
    check_chain,
    found_authority,
    from_pem,
    read_chain,
    read_request,
    request,
    to_pem,
)
from overlay.identity import id_of_key
from overlay.keys import key_id, public_bytes

BACK_S = BACKDATED.total_seconds()


def kind_of(chain, network, now=None):
    """What is wrong with a chain."""
    with pytest.raises(BadCertificate) as caught:
        check_chain(chain, network.authority, time.time() if now is None else now)
    assert str(caught.value)
    return caught.value.kind


@pytest.fixture(scope="module")
def issuer(network):
    return network.person("issuer", "issuer")


@pytest.fixture(scope="module")
def below(network, issuer):
    """A member whom the issuer certified."""
    return network.person("below", issuer=issuer)


@pytest.fixture(scope="module")
def forged(signed, network):
    """forged(name, by=person, **options): the chain of a key that `by` (the authority) signed."""

    def forged(name, by=None, **options):
        signer = (by.key, by.chain[0]) if by else (network.key, network.authority)
        made = signed.forge(
            signed.fixed_key(name).public_key(), by_key=signer[0], by=signer[1], **options
        )
        return (made, *(by.chain if by else ()))

    return forged


# As it should be.


@pytest.mark.parametrize("role", ["founder", "issuer", "member"])
def test_the_authority_certifies_every_role(network, role):
    person = network.person(1, role)
    found = check_chain(person.chain, network.authority, time.time())
    assert found == read_chain(person.chain)
    assert (found.peer_id, found.role, found.issuers) == (person.id, role, ())
    assert found.public_key == public_bytes(person.key)
    assert len(person.chain) == 1


def test_an_issuers_member_shows_both_certificates(network, issuer, below):
    found = check_chain(below.chain, network.authority, time.time())
    assert (found.peer_id, found.role, found.issuers) == (below.id, "member", (issuer.id,))
    assert below.chain[1:] == issuer.chain
    assert all(len(der) < 600 for der in below.chain)


def test_a_networks_id_is_that_of_its_authoritys_key(network):
    assert authority_key(network.authority) == public_bytes(network.key)
    assert id_of_key(authority_key(network.authority)) == network.id


def test_a_founder_certifies_as_an_issuer_does(network):
    founder = network.person("founder", "founder")
    found = check_chain(network.person(7, issuer=founder).chain, network.authority, time.time())
    assert found.issuers == (founder.id,)


def test_nothing_outlives_who_certified_it(signed, network):
    issuer_key = signed.fixed_key("short-lived")
    chain = certify(
        issuer_key.public_key(), "issuer",
        issuer_key=network.key, issuer=(), authority=network.authority, lifetime_s=600.0,
    )  # fmt: skip
    longer = certify(
        signed.fixed_key("longer").public_key(), "member",
        issuer_key=issuer_key, issuer=chain, authority=network.authority, lifetime_s=1e6,
    )  # fmt: skip
    assert read_chain(longer).expires_at == read_chain(chain).expires_at


def test_a_certificate_is_valid_from_an_hour_ago_for_ninety_days(network):
    found = read_chain(network.person(1).chain)
    assert found.expires_at - found.begins_at == pytest.approx(BACK_S + LIFETIME_S, abs=2.0)
    assert check_chain(network.person(1).chain, network.authority, found.begins_at) == found


def test_certificates_are_read_from_pem_as_they_were_written(below):
    assert from_pem(to_pem(*below.chain)) == below.chain
    assert to_pem(*below.chain).count(b"BEGIN CERTIFICATE") == 2
    with pytest.raises(ValueError):
        from_pem(b"nonsense")


# As it should not be.


@pytest.mark.parametrize("role", ["founder", "issuer"])
def test_an_issuer_is_not_asked_to_appoint_an_issuer(network, issuer, role):
    with pytest.raises(ValueError, match="only the network's founder"):
        network.person("upstart", role, issuer=issuer)


@pytest.mark.parametrize("role", ["founder", "issuer"])
@pytest.mark.parametrize(
    ("rights", "kind"), [({}, "malformed"), ({"ca": True, "path_length": 0}, "foreign")]
)
def test_an_issuer_that_appoints_an_issuer_all_the_same_is_not_heard(
    network, issuer, forged, role, rights, kind
):
    assert kind_of(forged("upstart", issuer, role=role, **rights), network) == kind


def test_who_an_upstart_certifies_is_no_member(network, issuer, signed, forged):
    upstart = forged("upstart", issuer, role="issuer", ca=True, path_length=0)
    key = signed.fixed_key("upstart")
    below = signed.forge(signed.fixed_key("below upstart").public_key(), by_key=key, by=upstart[0])
    assert kind_of((below, *upstart), network) == "malformed"  # three certificates
    assert kind_of((below, upstart[0]), network) == "foreign"  # the issuer's left out
    assert kind_of((below, issuer.chain[0]), network) == "foreign"


def test_a_member_cannot_certify_anybody(network, forged):
    assert kind_of(forged("friend", network.person(1)), network) == "foreign"


def test_an_issuers_member_cannot_certify_anybody(network, signed, below):
    made = signed.forge(
        signed.fixed_key("friend").public_key(), by_key=below.key, by=below.chain[0]
    )
    assert kind_of((made, *below.chain), network) == "malformed"
    assert kind_of((made, below.chain[0]), network) == "foreign"


def test_a_member_with_an_authoritys_rights_is_none(network, issuer, forged):
    assert kind_of(forged("odd", issuer, ca=True, path_length=0), network) == "malformed"
    assert kind_of(forged("odd", ca=True, path_length=0), network) == "malformed"


def test_an_issuer_without_an_authoritys_rights_is_none(network, forged):
    assert kind_of(forged("odd", role="issuer"), network) == "malformed"
    assert kind_of(forged("odd", role="issuer", ca=True), network) == "malformed"


@pytest.mark.parametrize(
    "units", [[], ["authority"], ["king"], ["member", "member"], ["member", "issuer"], ["Member"]]
)
def test_a_certificate_without_just_one_role_is_malformed(network, forged, units):
    assert kind_of(forged("odd", role=units), network) == "malformed"


def test_the_id_is_computed_and_never_read(network, signed, forged):
    chain = forged("thief", common_name=network.person(1).id)
    found = check_chain(chain, network.authority, time.time())
    assert found.peer_id == key_id(signed.fixed_key("thief"))


def test_another_networks_members_are_foreign(network, signed):
    other = signed.SignedNetwork("other")
    assert kind_of(other.person(1).chain, network) == "foreign"
    issuer = other.person("issuer", "issuer")
    assert kind_of(other.person(2, issuer=issuer).chain, network) == "foreign"
    assert kind_of((other.person(1).chain[0], *network.person(3).chain), network) == "foreign"


def test_an_authority_of_the_same_name_with_another_key_is_foreign(network, signed):
    """What counts is who signed, not whose name stands there."""
    made = signed.forge(
        signed.fixed_key("friend").public_key(),
        by_key=signed.fixed_key("another authority"),
        by=network.authority,
    )
    assert kind_of((made,), network) == "foreign"


def test_the_authority_is_no_member(network):
    assert kind_of((network.authority,), network) == "malformed"


def test_a_chain_has_one_or_two_certificates(network, below):
    for chain in ((), (*below.chain, network.authority), (below.chain[0],) * 3):
        assert kind_of(chain, network) == "malformed"
        with pytest.raises(BadCertificate):
            read_chain(chain)


def test_a_chain_in_the_wrong_order_is_foreign(network, below):
    assert kind_of(below.chain[::-1], network) == "foreign"
    assert kind_of(below.chain[:1], network) == "foreign"


def test_a_certificate_of_more_than_two_kibibytes_is_malformed(network, forged):
    large = forged("large", role=["x" * 60] * 30)
    assert len(large[0]) > MAX_CERTIFICATE_BYTES
    assert kind_of(large, network) == "malformed"


# In time.


def test_an_expired_certificate_is_expired_and_one_from_the_future_early(network):
    chain = network.person(1).chain
    found = read_chain(chain)
    assert kind_of(chain, network, found.expires_at) == "expired"
    assert kind_of(chain, network, found.begins_at - 1.0) == "early"
    assert check_chain(chain, network.authority, found.expires_at - 1.0) == found


def test_a_chain_is_valid_while_each_of_its_certificates_is(signed, network, forged):
    def chain(member, issuer):
        above = forged("brief", role="issuer", ca=True, path_length=0, **issuer)
        key = signed.fixed_key("brief")
        made = signed.forge(signed.fixed_key("m").public_key(), by_key=key, by=above[0], **member)
        return (made, *above)

    assert kind_of(chain({}, {"ends_s": -1.0}), network) == "expired"
    assert kind_of(chain({"ends_s": -1.0}, {}), network) == "expired"
    assert kind_of(chain({}, {"begins_s": 60.0}), network) == "early"
    assert kind_of(chain({"begins_s": 60.0}, {}), network) == "early"
    assert check_chain(chain({}, {}), network.authority, time.time()).role == "member"


# Nonsense.


def said_by(chain, network):
    """What a chain says, None for one that is refused."""
    with contextlib.suppress(BadCertificate):
        return check_chain(chain, network.authority, time.time())
    return None


changes = st.lists(st.tuples(st.integers(0, 2047), st.integers(1, 255)), min_size=1, max_size=4)


@given(which=st.integers(0, 1), changed=changes)
def test_a_changed_chain_is_a_bad_certificate_and_nothing_worse(network, below, which, changed):
    der = bytearray(below.chain[which])
    for at, change in changed:
        der[at % len(der)] ^= change
    chain = list(below.chain)
    chain[which] = bytes(der)
    # X.509 has more than one way to write one signature down.
    assert said_by(tuple(chain), network) in (None, read_chain(below.chain))
    assert said_by((bytes(der),), network) in (None, read_chain(below.chain[1:]))


def test_no_changed_byte_says_anything_else(network):
    (der,) = network.person(1).chain
    heard = []
    for at in range(len(der)):
        changed = bytearray(der)
        changed[at] ^= 0x01
        heard.append(said_by((bytes(changed),), network))
    assert set(heard) <= {None, read_chain((der,))}
    assert heard.count(None) >= len(der) - 1


@given(changed=changes)
def test_an_unverified_chain_reads_or_is_a_bad_certificate(below, changed):
    der = bytearray(below.chain[0])
    for at, change in changed:
        der[at % len(der)] ^= change
    with contextlib.suppress(BadCertificate):
        assert read_chain((bytes(der),)).peer_id


@given(changed=changes)
def test_a_changed_authority_is_a_bad_certificate(network, changed):
    der = bytearray(network.authority)
    for at, change in changed:
        der[at % len(der)] ^= change
    if bytes(der) != network.authority:
        with pytest.raises(BadCertificate):
            authority_key(bytes(der))


@given(chain=st.lists(st.binary(max_size=300), max_size=4).map(tuple))
@example(chain=(b"",))
@example(chain=(b"\x30\x80" * 1000,))
def test_any_bytes_are_a_bad_certificate(network, chain):
    assert said_by(chain, network) is None


def test_a_key_of_another_kind_is_refused(network, signed):
    for key in (ec.generate_private_key(ec.SECP256R1()), x448.X448PrivateKey.generate()):
        made = signed.forge(key.public_key(), by_key=network.key, by=network.authority)
        assert kind_of((made,), network) == "malformed"


def test_an_issuer_with_a_key_of_another_kind_is_refused(network, signed):
    curve = ec.generate_private_key(ec.SECP256R1())
    above = signed.forge(
        curve.public_key(), by_key=network.key, by=network.authority,
        role="issuer", ca=True, path_length=0,
    )  # fmt: skip
    name = x509.load_der_x509_certificate(above).subject
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(signed.fixed_key("m").public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(curve, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert said_by((made, above), network) is None


def test_a_certificate_above_whose_key_nobody_knows_is_foreign(network, signed):
    """The parser knows the form of a certificate without knowing the kind of its key."""
    stranger = bytearray(
        signed.forge(
            x448.X448PrivateKey.generate().public_key(), by_key=network.key, by=network.authority
        )
    )
    at = stranger.index(b"\x06\x03\x2b\x65\x6f")  # X448's object identifier
    stranger[at + 4] = 0x7A
    stranger = bytes(stranger)
    made = signed.forge(
        signed.fixed_key("m").public_key(), by_key=signed.fixed_key("x"), by=stranger
    )
    assert kind_of((made, stranger), network) == "foreign"
    with pytest.raises(BadCertificate):
        read_chain((stranger,))
    with pytest.raises(BadCertificate):
        authority_key(stranger)


def test_a_member_or_a_stranger_is_no_authority(network, signed):
    for der in (network.person(1).chain[0], b"", b"nonsense"):
        with pytest.raises(BadCertificate):
            authority_key(der)
    other = found_authority(signed.fixed_key("someone"))
    assert authority_key(other) == public_bytes(signed.fixed_key("someone"))


# Requests.


def test_a_request_proves_its_key(signed):
    key = signed.fixed_key("applicant")
    assert public_bytes(read_request(request(key))) == public_bytes(key)


@given(changed=changes)
def test_a_changed_request_is_malformed(signed, changed):
    der = bytearray(request(signed.fixed_key("applicant")))
    for at, change in changed:
        der[at % len(der)] ^= change
    if bytes(der) != request(signed.fixed_key("applicant")):
        with pytest.raises(BadCertificate):
            read_request(bytes(der))


def test_a_request_for_another_kind_of_key_is_malformed():
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    with pytest.raises(BadCertificate) as caught:
        read_request(der)
    assert caught.value.kind == "malformed"


@pytest.mark.filterwarnings("ignore")  # as outside tests, where it would be printed and taken
def test_a_negative_serial_number_is_no_certificate_and_prints_no_warning(network):
    (der,) = network.person(1).chain
    at = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7  # version 3, then the number's first byte
    negative = der[:at] + bytes([der[at] | 0x80]) + der[at + 1 :]
    with pytest.raises(BadCertificate, match="no certificate"):
        read_chain((negative,))
