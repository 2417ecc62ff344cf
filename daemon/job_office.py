"""The network's job at this peer: on the board, on disk, and told to the neighbours.

Rules kept here:
- a job is remembered before it is in force, and in force before anybody is told;
- a job of somebody who may not submit one here is reported, and neither taken nor passed on;
- a neighbour's job that this version cannot read is reported and left alone: it may be newer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from daemon.authorship import Authors, NotAnAuthor
from daemon.jobs import JobBoard, JobRejected, PostedJob
from daemon.notes import NOTES, JobOffer, JobRequest, JobState, Note
from daemon.store import Store
from learner.job import Job
from overlay.identity import short


class JobOffice:
    """Keeps a JobBoard; `on_posted` is called whenever another job is in force."""

    def __init__(
        self,
        board: JobBoard,
        authors: Authors,
        store: Store,
        *,
        say: Callable[[str, Note], None],
        neighbours: Callable[[], Iterable[str]],
        report: Callable[[str, dict[str, Any]], None],
        remember: Callable[[dict[str, str]], None],
        on_posted: Callable[[], None],
    ) -> None:
        self.board = board
        self._authors = authors
        self._store = store
        self._say = say
        self._neighbours = neighbours
        self._report = report
        self._remember = remember
        self._on_posted = on_posted
        self._offered: Job | None = None

    # What this peer's owner asks for.

    async def submit(self, job: Job) -> PostedJob:
        """Make `job` the network's job.

        Raises NotAnAuthor, JobRejected or StoreFailed, and then the job before it stays in force.
        """
        self.review()
        posted = await self._proposed(job)
        while not self.board.post(posted):  # a neighbour's came in meanwhile
            posted = await self._proposed(job)
        self._report("job.submitted", {"run": posted.run, "name": posted.job.name})
        self._tell(posted, but="")
        self._on_posted()
        return posted

    async def _proposed(self, job: Job) -> PostedJob:
        """The job, signed and on disk."""
        plain = self.board.proposal(job)
        posted = replace(plain, proof=self._authors.sign(plain.version, plain.text))
        await self._store.in_thread(self._store.put, _words(posted, own=True))
        return posted

    def offer(self, job: Job) -> None:
        """A job to post if the network turns out to have none."""
        self._offered = job

    def settle_offer(self) -> Job | None:
        """The offered job, if still nobody has posted one."""
        offered, self._offered = self._offered, None
        if offered is not None and self.board.posted is not None:
            self.ignore(offered)
            return None
        return offered

    def ignore(self, job: Job) -> None:
        """Say that a job from the command line is not posted, unless it is the one in force."""
        posted = self.board.posted
        if posted is not None and posted.job.digest != job.digest:
            reason = "the network has a job already; replace it with: gossipctl job submit FILE"
            self._report("job.ignored", {"reason": reason})

    async def restore(self) -> None:
        """Put the job of the last life in force, if there was one."""
        offer, own = await self._store.in_thread(
            lambda: [self._store.get(key) for key in ("job_offer", "job_own")]
        )
        if not offer:
            return
        self.board.restore(read_offer(offer), own=own == "yes")
        posted = self.board.posted
        if own == "yes" and posted is not None and self._authors.is_by_my_old_key(posted.proof):
            await self._sign_anew(posted)
        self._on_posted()

    async def _sign_anew(self, posted: PostedJob) -> None:
        """Vouch for this peer's own job with its new key; the run stays what it is."""
        try:
            proof = self._authors.sign(posted.version, posted.text)
        except NotAnAuthor as error:
            self._report("job.unauthorised", {"from": "this peer", "reason": str(error)})
            return
        self.board.posted = posted = replace(posted, proof=proof)
        await self._store.in_thread(self._store.put, _words(posted, own=True))

    def review(self) -> None:
        """Somebody may have been revoked: ask the neighbours for another job if the one in force
        was theirs."""
        board = self.board
        if board.posted is None:
            return
        was_void, board.is_void = board.is_void, bool(self._authors.objection(board.posted.offer))
        if board.is_void and not was_void:
            self._ask()

    def _ask(self) -> None:
        for peer in self._neighbours():
            self._say(peer, JobRequest())

    def allow(self, names: tuple[str, ...], jobs_from: str) -> None:
        """Allow other code, and take the jobs of other roles, from now on."""
        before = self.board.posted
        self.board.allow(names)
        if self.board.posted != before:
            self._on_posted()
        self._authors.take_from(jobs_from)
        self.review()
        self._ask()

    # What neighbours say.

    def greet(self, peer: str) -> None:
        """Tell a new neighbour which job is in force here."""
        self.review()
        self._say(peer, JobState(*self.board.rank))

    def hear(self, peer: str, note: JobState | JobRequest | JobOffer) -> None:
        """Ask for a job that wins, give the one in force, or take one over."""
        match note:
            case JobState():
                if (note.version, note.digest) > self.board.rank:
                    self._say(peer, JobRequest())
            case JobRequest():
                if (posted := self.board.posted) is not None and not self.board.is_void:
                    self._say(peer, posted.offer)
            case JobOffer():
                self._take_over(peer, note)

    def _take_over(self, peer: str, offer: JobOffer) -> None:
        self.review()
        try:
            posted = self.board.candidate(offer)
        except JobRejected as error:
            self._report("job.unreadable", {"from": short(peer), "reason": str(error)[:500]})
            return
        if posted is None:
            return
        if objection := self._authors.objection(offer):
            self._report("job.unauthorised", {"from": short(peer), "reason": objection})
            return
        before = self.board.posted
        self.board.post(posted)
        if before is not None and before.run == posted.run:
            # The same job, vouched for by another key.
            self.board.posted = replace(posted, refused=before.refused)
            self._remember({"job_offer": _written(posted.offer)})
            self._tell(posted, but=peer)
            return
        heard = {"from": short(peer), "run": posted.run, "refused": posted.refused}
        self._report("job.received", heard)
        self._remember(_words(posted, own=False))
        self._tell(posted, but=peer)
        self._on_posted()

    def _tell(self, posted: PostedJob, *, but: str) -> None:
        for peer in self._neighbours():
            if peer != but:
                self._say(peer, posted.offer)


def _words(posted: PostedJob, *, own: bool) -> dict[str, str]:
    return {"job_offer": _written(posted.offer), "job_own": "yes" if own else ""}


def _written(offer: JobOffer) -> str:
    return base64.b64encode(NOTES.encode(offer)).decode()


def read_offer(words: str) -> JobOffer:
    """A job as it was put on disk."""
    offer = NOTES.decode(base64.b64decode(words))
    assert isinstance(offer, JobOffer)
    return offer
