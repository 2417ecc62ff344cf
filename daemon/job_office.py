"""The network's job at this peer: on the board, on disk, and told to the neighbours.

Rules kept here:
- a job is remembered before it is in force, and in force before anybody is told;
- a neighbour's job that this version cannot read is reported and left alone: it may be newer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from daemon.jobs import JobBoard, JobRejected, PostedJob
from daemon.notes import JobOffer, JobRequest, JobState, Note
from daemon.store import Store, StoreFailed
from learner.job import Job
from overlay.identity import short


class JobOffice:
    """Keeps a JobBoard; `on_posted` is called whenever another job is in force."""

    def __init__(
        self,
        board: JobBoard,
        store: Store,
        *,
        say: Callable[[str, Note], None],
        neighbours: Callable[[], Iterable[str]],
        report: Callable[[str, dict[str, Any]], None],
        on_posted: Callable[[], None],
    ) -> None:
        self.board = board
        self._store = store
        self._say = say
        self._neighbours = neighbours
        self._report = report
        self._on_posted = on_posted
        self._offered: Job | None = None

    # What this peer's owner asks for.

    async def submit(self, job: Job) -> PostedJob:
        """Make `job` the network's job.

        Raises StoreFailed, and then the job before it stays in force.
        """
        posted = self.board.proposal(job)
        await self._store.in_thread(self._store.put, _words(posted, own=True))
        while not self.board.post(posted):  # a neighbour's came in meanwhile
            posted = self.board.proposal(job)
            await self._store.in_thread(self._store.put, _words(posted, own=True))
        self._report("job.submitted", {"run": posted.run, "name": posted.job.name})
        self._tell(posted, but="")
        self._on_posted()
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
        version, text, own = await self._store.in_thread(
            lambda: [self._store.get(key) for key in ("job_version", "job", "job_own")]
        )
        if text:
            self.board.restore(int(version), text, own=own == "yes")
            self._on_posted()

    def allow(self, names: tuple[str, ...]) -> None:
        """Allow other code from now on."""
        before = self.board.posted
        self.board.allow(names)
        if self.board.posted != before:
            self._on_posted()

    # What neighbours say.

    def greet(self, peer: str) -> None:
        """Tell a new neighbour which job is in force here."""
        self._say(peer, JobState(*self.board.rank))

    def hear(self, peer: str, note: JobState | JobRequest | JobOffer) -> None:
        """Ask for a job that wins, give the one in force, or take one over."""
        match note:
            case JobState():
                if (note.version, note.digest) > self.board.rank:
                    self._say(peer, JobRequest())
            case JobRequest():
                if (posted := self.board.posted) is not None:
                    self._say(peer, JobOffer(posted.version, posted.job.to_json()))
            case JobOffer():
                self._take_over(peer, note)

    def _take_over(self, peer: str, offer: JobOffer) -> None:
        try:
            posted = self.board.hear(offer.version, offer.text)
        except JobRejected as error:
            self._report("job.unreadable", {"from": short(peer), "reason": str(error)[:500]})
            return
        if posted is None:
            return
        heard = {"from": short(peer), "run": posted.run, "refused": posted.refused}
        self._report("job.received", heard)
        try:
            # From a callback that cannot wait; rare, and a millisecond.
            self._store.put(_words(posted, own=False))
        except StoreFailed as error:
            self._report(error.kind, {"reason": str(error)})
        self._tell(posted, but=peer)
        self._on_posted()

    def _tell(self, posted: PostedJob, *, but: str) -> None:
        for peer in self._neighbours():
            if peer != but:
                self._say(peer, JobOffer(posted.version, posted.job.to_json()))


def _words(posted: PostedJob, *, own: bool) -> dict[str, str]:
    return {
        "job_version": str(posted.version),
        "job": posted.job.to_json(),
        "job_own": "yes" if own else "",
    }
