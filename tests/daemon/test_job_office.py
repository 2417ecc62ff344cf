"""The network's job at one peer among neighbours, with real certificates and a store on disk."""

from types import SimpleNamespace

import pytest

from daemon.authorship import Authors
from daemon.job_office import JobOffice
from daemon.jobs import JobBoard
from daemon.notes import JobOffer, JobRequest, JobState
from daemon.store import Store
from learner.job import Job
from overlay.notary import Signing, seal
from overlay.revocation import Revocations
from tests.overlay.authorities import Authority

JOBS = [Job(name=f"job {i}", seed=i) for i in range(3)]


class Place:
    """One peer's office; `said` is what its neighbours were told."""

    def __init__(self, folder, authority, member, neighbours=()):
        self.authority = authority
        self.said, self.events, self.posted = [], [], []
        self.out = Revocations()
        self.neighbours = list(neighbours)
        self.store = Store(folder / "state.db")
        self.live(member)

    def live(self, member):
        """Begin a life with somebody's key."""
        table = SimpleNamespace(revocations=self.out)
        self.overlay = SimpleNamespace(
            my_id=member.peer_id,
            notary=Signing(member.key, member.chain, self.authority.certificate),
            machine=SimpleNamespace(table=table),
        )
        self.office = JobOffice(
            JobBoard(()),
            Authors("issuer", lambda: self.overlay),
            self.store,
            say=lambda peer, note: self.said.append((peer, note)),
            neighbours=lambda: self.neighbours,
            report=lambda kind, data: self.events.append((kind, data)),
            remember=self.store.put,
            on_posted=lambda: self.posted.append(self.office.board.posted.run),
        )

    def revoke(self, member):
        """The authority puts somebody out."""
        revocation = self.overlay.notary.revocation(member.peer_id, "out")
        self.out.add(seal(revocation, self.authority.key, self.authority.network, chain=()))
        self.office.review()

    def heard(self, kind):
        return [data for told, data in self.events if told == kind]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def make_place(authority, tmp_path):
    """A peer with a neighbour "n": make_place(name, role)."""
    places = []

    def make(name, role="member", **more):
        folder = tmp_path / name
        folder.mkdir()
        place = Place(folder, authority, authority.member(role), ["n"])
        place.me = place.overlay.my_id
        places.append(place)
        return place

    yield make
    for place in places:
        place.store.close()


async def offer_of(make_place, authority, number, member, version=1):
    """A job as `member` submits it."""
    place = make_place(f"author {number}")
    place.live(member)
    for _ in range(version):
        posted = await place.office.submit(JOBS[number])
    return posted.offer


async def test_a_job_goes_from_an_issuer_to_a_newcomer_and_is_passed_on_as_it_was_signed(
    make_place, authority
):
    offer = await offer_of(make_place, authority, 0, authority.member("issuer"))
    place = make_place("reader")
    place.office.hear("x", offer)
    assert place.posted == [f"1-{JOBS[0].digest}"]
    assert place.said == [("n", offer)]
    place.office.hear("n", JobRequest())
    assert place.said[-1] == ("n", offer)


async def test_a_revoked_authors_job_stays_until_there_is_another_whatever_its_version(
    make_place, authority
):
    bad, good = authority.member("issuer"), authority.member("issuer")
    place = make_place("reader")
    place.office.hear("x", await offer_of(make_place, authority, 0, bad, version=3))
    place.said.clear()
    place.revoke(bad)
    assert place.said == [("n", JobRequest())]
    assert place.office.board.posted.job == JOBS[0]
    place.office.greet("n")
    place.office.hear("n", JobRequest())
    assert place.said[1:] == [("n", JobState(0, ""))]  # not offered to anybody any more
    offer = await offer_of(make_place, authority, 1, good)
    place.office.hear("n", JobState(1, JOBS[1].digest))
    assert place.said[-1] == ("n", JobRequest())
    place.office.hear("n", offer)
    assert place.office.board.posted.run == f"1-{JOBS[1].digest}"
    # The old one does not come back.
    place.office.hear("x", await offer_of(make_place, authority, 2, bad, version=5))
    assert place.office.board.posted.run == f"1-{JOBS[1].digest}"
    assert "was revoked" in place.heard("job.unauthorised")[0]["reason"]


async def test_an_author_with_a_new_key_vouches_for_its_job_anew_and_the_run_goes_on(
    make_place, authority
):
    author, reader = make_place("author", "issuer"), make_place("reader")
    posted = await author.office.submit(JOBS[0])
    reader.office.hear("n", posted.offer)
    old = author.overlay.notary
    successor = authority.member("issuer")
    for place in (author, reader):
        place.out.add(old.revocation(author.me, "new key"))
    reader.office.review()
    author.live(successor)
    await author.office.restore()
    assert author.office.board.posted.run == posted.run
    assert author.office.board.posted.proof.chain == successor.chain

    reader.office.hear("n", JobState(*author.office.board.rank))
    assert reader.said[-1] == ("n", JobRequest())
    reader.office.hear("n", author.office.board.posted.offer)
    assert reader.office.board.posted.proof.chain == successor.chain
    assert reader.posted == [posted.run]  # it was not begun anew
    reader.live(authority.member())
    await reader.office.restore()
    assert reader.office.board.posted.offer == author.office.board.posted.offer


async def test_who_gives_up_a_key_and_is_a_plain_member_now_says_that_its_job_counts_no_more(
    make_place, authority
):
    author = make_place("author", "issuer")
    posted = await author.office.submit(JOBS[0])
    author.out.add(author.overlay.notary.revocation(author.me, "new key"))
    author.live(authority.member())
    await author.office.restore()
    author.office.greet("n")
    assert author.office.board.posted.run == posted.run
    assert author.said[-1] == ("n", JobState(0, ""))
    assert "is a plain member" in author.heard("job.unauthorised")[0]["reason"]


async def test_other_roles_from_now_on_means_asking_the_neighbours_again(make_place, authority):
    member = authority.member()
    place = make_place("reader")
    author = make_place("author")
    author.live(member)
    author.office.allow((), "member")
    offer = (await author.office.submit(JOBS[0])).offer
    assert isinstance(offer, JobOffer)
    place.office.hear("n", offer)
    assert place.office.board.posted is None
    place.office.allow((), "member")
    assert place.said == [("n", JobRequest())]
    place.office.hear("n", offer)
    assert place.office.board.posted.job == JOBS[0]
    place.office.allow((), "issuer")
    assert place.office.board.is_void
    place.office.allow((), "member")
    assert not place.office.board.is_void
