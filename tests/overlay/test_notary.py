"""Whose word is whose: what is signed is believed of its author alone, in its own network."""

import dataclasses

import pytest

from overlay.certificates import read_chain
from overlay.notary import Forged, Signing, Unsigned
from overlay.records import SIGNATURE_BYTES, Fate, State, Vote


@pytest.fixture
def me(network):
    return network.person("me")


@pytest.fixture
def other(network):
    return network.person("other", issuer=network.person("issuer", "issuer"))


@pytest.fixture
def foreigner(signed):
    return signed.SignedNetwork("other").person("me")


def test_a_notary_belongs_to_the_authoritys_network(network, me):
    assert me.notary.network == network.id
    assert me.notary.certified.peer_id == me.id


def test_a_record_is_signed_with_the_chain_that_makes_its_owner_a_member(me, other):
    assert me.record.chain == me.chain
    assert len(me.record.signature) == SIGNATURE_BYTES
    assert other.notary.knows(me.record)
    assert me.notary.knows(other.record)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"}, {"addresses": ("ws://elsewhere:1",)}, {"incarnation": 2},
        {"learner": False}, {"part": 3}, {"signature": bytes(64)}, {"signature": b""},
    ],
)  # fmt: skip
def test_a_changed_record_is_forged(me, other, changes):
    with pytest.raises(Forged):
        other.notary.knows(dataclasses.replace(me.record, **changes))


def test_a_record_with_anothers_certificate_is_forged(me, other):
    stolen = other.notary.record(me.record)  # signed by other, with other's chain
    with pytest.raises(Forged):
        me.notary.knows(stolen)
    for chain in (other.chain, (), other.chain[:1]):
        with pytest.raises(Forged):
            me.notary.knows(dataclasses.replace(me.record, chain=chain))


def test_a_stolen_id_is_forged(network, signed, me, other):
    """The right authority's certificate with another key, which signs in the name of `me`."""
    thief = dataclasses.replace(other.record, peer_id=me.id, name="me")
    with pytest.raises(Forged):
        me.notary.knows(other.notary.record(thief))


def test_a_record_of_another_network_is_forged(me, foreigner):
    assert foreigner.notary.knows(foreigner.record)
    with pytest.raises(Forged):
        me.notary.knows(foreigner.record)


def test_who_is_not_a_member_now_is_not_known(network, me):
    certified = read_chain(me.chain)
    for now in (certified.begins_at - 1.0, certified.expires_at):
        at_that_time = Signing(me.key, me.chain, network.authority, clock=lambda now=now: now)
        assert not at_that_time.knows(me.record)


def test_a_renewed_certificate_is_used_from_then_on(network, me):
    notary = Signing(me.key, me.chain, network.authority)
    newer = network.person("me", "issuer")
    newer_chain = network.person("me").chain
    notary.renew(newer_chain)
    assert notary.record(me.record).chain == newer_chain
    assert newer.chain != newer_chain


@pytest.mark.parametrize("hard", [True, False])
def test_a_testimony_is_its_observers_alone(me, other, id_of, hard):
    vote = me.vote(id_of(9), incarnation=3, hard=hard)
    assert other.notary.vouches(id_of(9), vote, me.record)
    assert not other.notary.vouches(id_of(9), vote, other.record)
    assert not other.notary.vouches(id_of(8), vote, me.record)
    for changes in ({"incarnation": 4}, {"hard": not hard}, {"signature": bytes(64)}):
        changed = Vote(**{**vote._asdict(), **changes})
        assert not other.notary.vouches(id_of(9), changed, me.record)
    assert not other.notary.vouches(id_of(9), Vote(me.id, 3, hard, b""), me.record)


def test_a_testimony_of_another_network_is_none(me, foreigner, signed, network, id_of):
    """The same key in two networks: what it says in one does not serve in the other."""
    vote = Vote(me.id, 1, True, foreigner.notary.testimony(id_of(9), 1, True))
    assert foreigner.key.private_bytes_raw() == me.key.private_bytes_raw()
    assert not me.notary.vouches(id_of(9), vote, me.record)


def test_a_goodbye_is_the_members_own_and_of_one_life(me, other):
    assert other.notary.has_left(me.record, me.goodbye())
    later = Fate(me.id, 2, State.LEFT, me.goodbye().votes)
    assert not other.notary.has_left(me.record, later)
    forged = Fate(me.id, 1, State.LEFT, other.notary.goodbye(1))
    assert not other.notary.has_left(me.record, forged)
    for votes in ((), me.goodbye().votes * 2):
        assert not other.notary.has_left(me.record, Fate(me.id, 1, State.LEFT, votes))
    dead = Fate(me.id, 1, State.DEAD, me.goodbye().votes)
    assert not other.notary.has_left(me.record, dead)


def test_no_signature_serves_another_purpose(me, other):
    """A testimony against oneself is no goodbye, and a goodbye no testimony."""
    testimony = me.notary.testimony(me.id, 1, True)
    votes = (Vote(me.id, 1, True, testimony),)
    assert not other.notary.has_left(me.record, Fate(me.id, 1, State.LEFT, votes))
    assert not other.notary.vouches(me.id, me.goodbye().votes[0], me.record)


def test_a_revocation_is_checked_against_the_role_of_its_subject(network, me, other):
    issuer = network.person("issuer", "issuer")
    appointed = network.person("second", "issuer")
    assert me.notary.may_revoke(issuer.notary.revocation(me.id, "why", me.chain))
    assert not me.notary.may_revoke(issuer.notary.revocation(appointed.id, "", appointed.chain))
    assert not me.notary.may_revoke(me.notary.revocation(other.id, "", other.chain))


def test_plain_links_believe_every_word_and_revoke_nobody(network, member, id_of):
    notary = Unsigned(id_of(0))
    assert notary.record(member(0)) == member(0)
    assert notary.knows(member(1))
    assert notary.testimony(id_of(1), 1, True) == b""
    assert notary.goodbye(3) == (Vote(id_of(0), 3, True, b""),)
    assert notary.vouches(id_of(1), Vote(id_of(2), 1, True, b""), member(2))
    assert notary.has_left(member(1), Fate(id_of(1), 1, State.LEFT))
    assert not notary.may_revoke(network.revocation(id_of(1)))
