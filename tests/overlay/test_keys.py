import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import id_of_key
from overlay.keys import (
    KeyUnusable,
    is_signed,
    key_id,
    new_key,
    public_bytes,
    read_key,
    sign,
    to_pem,
    write_secret,
)

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = public_bytes(KEY)
NETWORK, OTHER = "n" * 52, "o" * 52

words = st.lists(
    st.none() | st.booleans() | st.integers(0, 2**53) | st.text(max_size=9) | st.binary(max_size=9),
    max_size=4,
)


def test_the_id_is_that_of_the_public_key():
    assert len(PUBLIC) == 32
    assert key_id(KEY) == key_id(KEY.public_key()) == id_of_key(PUBLIC)
    assert key_id(new_key()) != key_id(new_key())


@given(said=words)
def test_what_was_signed_is_signed(said):
    signature = sign(KEY, "record", NETWORK, said)
    assert len(signature) == 64
    assert is_signed(PUBLIC, signature, "record", NETWORK, said)
    assert is_signed(PUBLIC, signature, "record", NETWORK, said)  # remembered


@given(said=words, other=words)
def test_other_words_are_not(said, other):
    signature = sign(KEY, "record", NETWORK, said)
    assert is_signed(PUBLIC, signature, "record", NETWORK, other) is (
        list(map(repr, said)) == list(map(repr, other))
    )


def test_a_signature_serves_for_one_purpose_in_one_network_by_one_key():
    signature = sign(KEY, "record", NETWORK, ["a"])
    assert not is_signed(PUBLIC, signature, "testimony", NETWORK, ["a"])
    assert not is_signed(PUBLIC, signature, "record", OTHER, ["a"])
    assert not is_signed(public_bytes(new_key()), signature, "record", NETWORK, ["a"])
    assert not is_signed(PUBLIC, signature, "record", "", [NETWORK, "a"])


@given(at=st.integers(0, 63), change=st.integers(1, 255))
def test_a_changed_signature_is_none(at, change):
    signature = bytearray(sign(KEY, "record", NETWORK, ["a"]))
    signature[at] ^= change
    assert not is_signed(PUBLIC, bytes(signature), "record", NETWORK, ["a"])


@pytest.mark.parametrize("key", [b"", PUBLIC[:31], PUBLIC + b"x", bytes(32), b"\xff" * 32])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_nonsense_is_no_signature(key, signature):
    if (key, signature) != (bytes(32), bytes(64)):
        assert not is_signed(key, signature, "record", NETWORK, ["a"])


def test_there_is_no_key_in_a_file_that_is_not_there(tmp_path):
    assert read_key(tmp_path / "peer.key") is None


def test_a_key_is_written_for_its_owner_alone_and_read_back(tmp_path):
    path = tmp_path / "peer.key"
    before = os.umask(0)
    try:
        write_secret(path, to_pem(KEY))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_key(path)
    assert found is not None
    assert public_bytes(found) == PUBLIC
    assert [entry.name for entry in tmp_path.iterdir()] == ["peer.key"]


def test_a_write_that_was_cut_short_leaves_the_old_file_and_is_no_hindrance(tmp_path):
    path = tmp_path / "peer.key"
    write_secret(path, to_pem(KEY))
    (tmp_path / ".peer.key.new").write_bytes(b"half")
    found = read_key(path)
    assert found is not None
    assert public_bytes(found) == PUBLIC
    write_secret(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_read_is_refused_with_what_to_do(tmp_path, mode):
    path = tmp_path / "peer.key"
    write_secret(path, to_pem(KEY))
    path.chmod(mode)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        read_key(path)


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        to_pem(KEY)[:-30],
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(x25519.X25519PrivateKey.generate()),
        KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
    ],
    ids=["empty", "nonsense", "cut", "other curve", "exchange", "encrypted"],
)
def test_a_file_without_an_ed25519_key_is_refused(tmp_path, data):
    path = tmp_path / "peer.key"
    write_secret(path, data)
    with pytest.raises(KeyUnusable, match="holds no Ed25519 key"):
        read_key(path)


def test_a_secret_never_shows_in_the_error(tmp_path):
    path = tmp_path / "peer.key"
    write_secret(path, to_pem(KEY)[:-30])
    with pytest.raises(KeyUnusable) as caught:
        read_key(path)
    assert to_pem(KEY).splitlines()[1].decode()[:10] not in str(caught.value)


def test_a_folder_in_place_of_a_key_is_refused(tmp_path):
    path = tmp_path / "peer.key"
    path.mkdir(mode=0o700)
    with pytest.raises(KeyUnusable, match="cannot be read"):
        read_key(path)
