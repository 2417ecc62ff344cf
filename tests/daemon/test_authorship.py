"""Who may submit jobs, with real certificates."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from daemon.authorship import Authors, NotAnAuthor
from daemon.notes import JobOffer, Proof
from overlay.notary import Signing, Unsigned
from overlay.revocation import Revocations
from tests.overlay.authorities import Authority

TEXT = '{"name": "a job"}'


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def make(authority):
    """Somebody's Authors: make(member, least). What a peer knows of revocations is `make.out`."""

    def authors(member, least="issuer", clock=time.time):
        notary = Signing(member.key, member.chain, authority.certificate, clock=clock)
        table = SimpleNamespace(revocations=authors.out)
        overlay = SimpleNamespace(notary=notary, machine=SimpleNamespace(table=table))
        return Authors(least, lambda: overlay)

    authors.out = Revocations()
    return authors


def offer_of(authors, version=3):
    return JobOffer(version, TEXT, authors.sign(version, TEXT))


@pytest.mark.parametrize(
    ("least", "taken"),
    [
        ("founder", ["founder"]),
        ("issuer", ["founder", "issuer"]),
        ("member", ["founder", "issuer", "member"]),
    ],
)
def test_jobs_are_taken_from_the_roles_that_the_owner_names_and_those_above(
    authority, make, least, taken
):
    reader = make(authority.member(), least)
    for role in ("founder", "issuer", "member"):
        offer = offer_of(make(authority.member(role), "member"))
        objection = reader.objection(offer)
        assert (objection == "") is (role in taken), objection
        if objection:
            assert f"is a plain {role}" in objection
            assert "learner.jobs_from" in objection


def test_another_lowest_role_counts_from_then_on(authority, make):
    reader, offer = make(authority.member()), offer_of(make(authority.member(), "member"))
    assert reader.objection(offer) != ""
    reader.take_from("member")
    assert reader.objection(offer) == ""


def test_who_may_not_submit_is_told_before_anybody_else_hears_of_it(authority, make):
    with pytest.raises(NotAnAuthor, match="jobs are taken from founder or issuer here"):
        make(authority.member("member")).sign(1, TEXT)


@pytest.mark.parametrize(
    "changes", [{"version": 4}, {"text": '{"name": "another"}'}, {"proof": Proof()}]
)
def test_a_job_that_is_not_its_authors_word_is_not_taken(authority, make, changes):
    offer = offer_of(make(authority.member("issuer")))
    reader = make(authority.member())
    assert reader.objection(offer) == ""
    assert reader.objection(replace(offer, **changes)) != ""


def test_an_altered_time_or_somebody_elses_certificate_is_not_taken(authority, make):
    issuer, other = authority.member("issuer"), authority.member("issuer")
    offer = offer_of(make(issuer))
    reader = make(authority.member())
    for changes in ({"at": offer.proof.at - 1}, {"chain": other.chain}):
        forged = replace(offer, proof=replace(offer.proof, **changes))
        assert "is not the word of" in reader.objection(forged)


def test_a_job_of_another_network_is_not_taken(authority, make, tmp_path):
    other = Authority(tmp_path / "other")
    issuer = other.member("issuer")
    notary = Signing(issuer.key, issuer.chain, other.certificate)
    chain, signature = notary.word("job", (3, TEXT, 5))
    offer = JobOffer(3, TEXT, Proof(5, chain, signature))
    assert "of this job: " in make(authority.member()).objection(offer)


def test_an_authors_certificate_may_expire_once_the_job_is_signed(authority, make, monkeypatch):
    offer = offer_of(make(authority.member("issuer", lifetime_s=60)))
    late = make(authority.member(), clock=lambda: time.time() + 3600)
    assert late.objection(offer) == ""
    monkeypatch.setattr("daemon.authorship.time.time", lambda: time.time_ns() / 1e9 + 3600)
    with pytest.raises(NotAnAuthor, match="has expired"):
        make(authority.member("issuer", lifetime_s=60)).sign(3, TEXT)


def test_the_jobs_of_a_revoked_issuer_count_no_more(authority, make):
    issuer, founder = authority.member("issuer"), authority.member("founder")
    offer = offer_of(make(issuer))
    reader = make(authority.member())
    by_founder = Signing(authority.key, founder.chain, authority.certificate)
    make.out.add(replace(by_founder.revocation(issuer.peer_id, "stolen"), chain=()))
    assert "was revoked: submit the job once more" in reader.objection(offer)


def test_a_key_that_was_given_up_signs_no_jobs_whenever_it_says_that_it_did(authority, make):
    issuer = authority.member("issuer")
    old = Signing(issuer.key, issuer.chain, authority.certificate)
    make.out.add(old.revocation(issuer.peer_id, "new key"))
    at = int(time.time()) - 100
    chain, signature = old.word("job", (3, TEXT, at))
    reader = make(authority.member())
    assert "was revoked" in reader.objection(JobOffer(3, TEXT, Proof(at, chain, signature)))


def test_in_a_network_of_plain_links_every_job_counts():
    overlay = SimpleNamespace(notary=Unsigned("a" * 52))
    authors = Authors("founder", lambda: overlay)
    assert authors.sign(1, TEXT).signature == b""
    assert authors.objection(JobOffer(1, TEXT, Proof())) == ""
    for proof in (Proof(0, (b"no certificate",)), Proof(0, (), bytes(64))):
        assert authors.objection(JobOffer(1, TEXT, proof)) != ""
