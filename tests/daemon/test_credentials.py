import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from daemon import credentials as credentials_module
from daemon.credentials import Credentials
from overlay.certificates import check_chain, read_chain, to_pem
from overlay.enrolment import Enrolled
from overlay.keys import KeyUnusable, key_id, new_key

FILES = ("identity.pem", "network.crt", "authority.key")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def founder(tmp_path):
    made = Credentials(mkdir(tmp_path / "founder"))
    made.found()
    return made


def mkdir(path):
    path.mkdir()
    return path


@pytest.fixture
def enrolled(founder):
    """enrolled(credentials, role): what the founder gives somebody."""

    def make(newcomer, role="member"):
        chain = founder.certify(newcomer.key.public_key(), role)
        return Enrolled(founder.authority, chain)

    return make


@pytest.fixture
def folder(tmp_path):
    return mkdir(tmp_path / "peer")


def test_a_first_start_makes_a_key_and_no_member(folder):
    made = Credentials(folder)
    assert (made.network, made.chain, made.may_enrol, made.is_founder) == ("", (), False, False)
    assert [file.name for file in folder.iterdir()] == ["identity.pem"]
    assert mode(folder / "identity.pem") == 0o600
    assert Credentials(folder).peer_id == made.peer_id


def test_a_founder_is_its_networks_first_member_across_restarts(folder):
    made = Credentials(folder)
    made.found()
    assert {file.name for file in folder.iterdir()} == set(FILES)
    assert [mode(folder / name) for name in FILES] == [0o600] * 3
    again = Credentials(folder)
    assert (again.peer_id, again.network, again.chain) == (made.peer_id, made.network, made.chain)
    assert (again.certified.role, again.may_enrol, again.is_founder) == ("founder", True, True)
    check_chain(again.chain, again.authority, again.certified.begins_at)


@pytest.mark.parametrize(("role", "may_enrol"), [("member", False), ("issuer", True)])
def test_who_was_enrolled_is_a_member_across_restarts(folder, founder, enrolled, role, may_enrol):
    made = Credentials(folder)
    made.take(enrolled(made, role))
    again = Credentials(folder)
    assert (again.network, again.certified.role) == (founder.network, role)
    assert (again.may_enrol, again.is_founder) == (may_enrol, False)


def test_an_issuer_certifies_members_and_no_issuers(folder, founder, enrolled):
    issuer = Credentials(folder)
    issuer.take(enrolled(issuer, "issuer"))
    key = new_key().public_key()
    made = read_chain(issuer.certify(key, "member"))
    assert (made.role, made.issuers) == ("member", (issuer.peer_id,))
    with pytest.raises(ValueError, match="only the network's founder appoints issuers"):
        issuer.certify(key, "issuer")


def test_who_joins_another_network_gives_up_the_authority_of_its_own(folder, founder, enrolled):
    made = Credentials(folder)
    made.found()
    made.take(enrolled(made))
    assert not (folder / "authority.key").exists()
    for one in (made, Credentials(folder)):
        assert (one.network, one.is_founder, one.certified.role) == (
            founder.network, False, "member",
        )  # fmt: skip


def test_certificates_live_as_long_as_was_chosen(folder):
    made = Credentials(folder, lifetime_s=1000.0)
    made.found()
    life_s = made.certified.expires_at - made.certified.begins_at
    assert life_s - 3600 == pytest.approx(1000, abs=2)


def test_a_renewed_certificate_and_a_new_key_are_kept(folder):
    made = Credentials(folder, lifetime_s=1000.0)
    made.found()
    old = made.chain
    made.renew_own()
    assert made.chain != old
    assert Credentials(folder).chain == made.chain
    before, key = made.peer_id, new_key()
    made.prepare(key, made.certify(key.public_key(), "founder"))
    assert made.turn_over()
    assert not made.turn_over()
    again = Credentials(folder)
    assert again.peer_id == made.peer_id != before
    assert again.network == made.network


def test_who_was_enrolled_under_a_new_key_is_a_member_under_it(folder, founder, enrolled):
    made = Credentials(folder)
    made.take(enrolled(made))
    key = new_key()
    chain = founder.certify(key.public_key(), "member")
    made.take(Enrolled(founder.authority, chain), key=key)
    for one in (made, Credentials(folder)):
        assert (one.peer_id, one.chain, one.network) == (key_id(key), chain, founder.network)


def test_who_is_enrolled_in_its_own_network_keeps_the_authority(founder, tmp_path):
    authority = (tmp_path / "founder" / "authority.key").read_bytes()
    chain = founder.certify(founder.key.public_key(), "founder")
    founder.take(Enrolled(founder.authority, chain))
    assert (tmp_path / "founder" / "authority.key").read_bytes() == authority
    for one in (founder, Credentials(tmp_path / "founder")):
        assert (one.is_founder, one.chain) == (True, chain)
        assert one.certify(new_key().public_key(), "issuer")


def test_a_certificate_of_another_key_is_no_newer_one(folder, founder, enrolled):
    made = Credentials(folder)
    made.take(enrolled(made))
    key = new_key()
    theirs = founder.certify(key.public_key(), "member")
    for chain, other in ((theirs, None), (made.chain, key)):
        with pytest.raises(ValueError, match="a certificate of another key"):
            made.renew(chain, key=other)
    again = Credentials(folder)
    assert (made.peer_id, made.chain) == (again.peer_id, again.chain)


# Files that do not fit.


@pytest.mark.parametrize("survivors", range(3))
def test_a_founder_that_was_killed_between_its_files_can_found_again(
    folder, monkeypatch, survivors
):
    made = Credentials(folder)
    identity, write_secret, written = made.peer_id, credentials_module.write_secret, []

    def write(path, data):
        if len(written) == survivors:
            raise KeyboardInterrupt
        write_secret(path, data)
        written.append(path.name)

    monkeypatch.setattr(credentials_module, "write_secret", write)
    with pytest.raises(KeyboardInterrupt):
        made.found()
    monkeypatch.undo()
    again = Credentials(folder)
    assert (again.peer_id, again.network) == (identity, "")
    again.found()
    assert Credentials(folder).network == again.network != ""
    assert again.is_founder


@pytest.mark.parametrize("survivors", range(2))
def test_a_newcomer_that_was_killed_between_its_files_has_no_network(
    folder, enrolled, monkeypatch, survivors
):
    made = Credentials(folder)
    granted = enrolled(made)
    write_secret, written = credentials_module.write_secret, []

    def write(path, data):
        if len(written) == survivors:
            raise KeyboardInterrupt
        write_secret(path, data)
        written.append(path.name)

    monkeypatch.setattr(credentials_module, "write_secret", write)
    with pytest.raises(KeyboardInterrupt):
        made.take(granted)
    monkeypatch.undo()
    again = Credentials(folder)
    assert (again.peer_id, again.network) == (made.peer_id, "")
    again.take(granted)
    assert Credentials(folder).network == granted.network


def test_a_file_is_there_whole_or_not_at_all(folder, monkeypatch):
    made = Credentials(folder)
    made.found()
    before = (folder / "identity.pem").read_bytes()

    def full(descriptor):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("overlay.keys.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        made.renew_own()
    assert (folder / "identity.pem").read_bytes() == before
    monkeypatch.undo()
    made.renew_own()
    assert Credentials(folder).chain == made.chain
    assert {file.name for file in folder.iterdir()} == set(FILES)


def test_a_certificate_of_another_network_than_the_one_beside_it_counts_as_none(folder, enrolled):
    made = Credentials(folder)
    made.take(enrolled(made))
    stranger = Credentials(mkdir(folder / "stranger"))
    stranger.found()
    (folder / "network.crt").write_bytes(to_pem(stranger.authority))
    again = Credentials(folder)
    assert (again.network, again.chain, again.may_enrol) == ("", (), False)
    assert again.peer_id == made.peer_id


def test_a_certificate_for_another_key_counts_as_none(folder, founder):
    made = Credentials(folder)
    made.take(Enrolled(founder.authority, founder.certify(new_key().public_key(), "member")))
    assert Credentials(folder).network == ""


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_network_file_that_cannot_be_read_counts_as_none(folder, enrolled, text):
    made = Credentials(folder)
    made.take(enrolled(made))
    (folder / "network.crt").write_bytes(text)
    assert Credentials(folder).network == ""


@pytest.mark.parametrize("name", ["identity.pem", "authority.key"])
def test_a_key_that_others_may_read_is_refused_with_words(folder, name):
    Credentials(folder).found()
    (folder / name).chmod(0o640)
    with pytest.raises(KeyUnusable, match=f"{name} may be read by others; run: chmod 600 "):
        Credentials(folder)
    (folder / name).chmod(0o600)
    assert Credentials(folder).is_founder


@pytest.mark.parametrize("name", ["identity.pem", "authority.key"])
@pytest.mark.parametrize("kind", ["text", "curve"])
def test_a_file_without_a_key_of_ours_is_refused_with_words(folder, name, kind):
    Credentials(folder).found()
    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (folder / name).write_bytes(b"quoted by nobody" if kind == "text" else other)
    with pytest.raises(KeyUnusable, match="holds no Ed25519 key; restore it from a copy") as caught:
        Credentials(folder)
    assert "quoted" not in str(caught.value)


def test_what_tls_shows_is_what_the_files_hold(folder):
    made = Credentials(folder)
    made.found()
    shown = made.contexts()
    assert shown.server.get_ca_certs(binary_form=True) == [made.authority]
    assert shown.client.verify_mode.name == "CERT_REQUIRED"
    assert made.signing().network == made.network
