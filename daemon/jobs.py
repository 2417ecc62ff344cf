"""The network's job: one versioned job, spread from neighbour to neighbour.

Rules kept here:
- the higher (version, digest) wins everywhere, so all peers end with the same job; one whose
  author was revoked since loses against every other, and stays in force until there is one;
- a job is checked as strictly as a file before it is taken, and remembered before it is told;
- a job from the network that would import code this owner did not allow is not taken; it is passed
  on all the same, for others may allow it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from daemon.notes import MAX_VERSION, JobOffer, Proof
from learner.job import Job
from learner.job_file import job_from_json
from learner.schema import SchemaError
from overlay.certificates import read_chain


@dataclass(frozen=True, slots=True)
class PostedJob:
    """A job of the network. `text` is its JSON as its author signed it; `refused` says why this
    peer will not run it ('' if it will)."""

    version: int
    job: Job
    text: str
    proof: Proof
    refused: str = ""

    @property
    def offer(self) -> JobOffer:
        """What neighbours are told."""
        return JobOffer(self.version, self.text, self.proof)

    @property
    def run(self) -> str:
        """Names this posting: the same job submitted twice is two runs."""
        return f"{self.version}-{self.job.digest}"

    @property
    def rank(self) -> tuple[int, str]:
        """What decides between two postings."""
        return self.version, self.job.digest

    def brief(self) -> dict[str, Any]:
        """As it is shown by the control API where the job itself would be too much."""
        return {
            "name": self.job.name,
            "version": self.version,
            "digest": self.job.digest,
            "run": self.run,
            "refused": self.refused,
            "author": read_chain(self.proof.chain).peer_id if self.proof.chain else None,
        }


class JobRejected(ValueError):
    """A neighbour's job that is no job."""


class JobBoard:
    """The posting in force."""

    def __init__(self, allowed: tuple[str, ...], *, own_data: bool = False) -> None:
        """`allowed` are the names a job from the network may use of this machine; with `own_data`
        this peer names its data itself, and the job's source does not count."""
        self._allowed = frozenset(allowed)
        self._own_data = own_data
        self.posted: PostedJob | None = None
        self.is_void = False  # its author is out: it stays until there is another

    @property
    def rank(self) -> tuple[int, str]:
        """The rank in force; (0, '') while there is no job that counts."""
        return (0, "") if self.posted is None or self.is_void else self.posted.rank

    def proposal(self, job: Job) -> PostedJob:
        """A job of this peer's owner, above whatever is in force, unsigned yet. Code it names is
        trusted. Raises JobRejected where nothing is above."""
        version = self.posted.version + 1 if self.posted is not None else 1
        if version > MAX_VERSION:
            if not self.is_void:
                raise JobRejected("the job in force has the last version: revoke its author first")
            version = 1
        return PostedJob(version, job, job.to_json(), Proof())

    def post(self, posted: PostedJob) -> bool:
        """Put a proposal in force; False if something outranks it by now."""
        if posted.rank <= self.rank:
            return False
        self.posted, self.is_void = posted, False
        return True

    def candidate(self, offer: JobOffer) -> PostedJob | None:
        """A neighbour's job, if it outranks the one in force. Raises JobRejected."""
        try:
            job = job_from_json(offer.text, source="the network's job")
        except SchemaError as error:
            raise JobRejected(str(error)) from None
        if (offer.version, job.digest) <= self.rank:
            return None
        return PostedJob(offer.version, job, offer.text, offer.proof, self.refusal(job))

    def restore(self, offer: JobOffer, *, own: bool) -> None:
        """The posting of the last life; `own` if this peer's owner had submitted it."""
        job = job_from_json(offer.text, source="the remembered job")
        refused = "" if own else self.refusal(job)
        self.posted = PostedJob(offer.version, job, offer.text, offer.proof, refused)

    def allow(self, names: tuple[str, ...]) -> None:
        """Allow other code from now on; a job that was refused may run now."""
        self._allowed = frozenset(names)
        posted = self.posted
        if posted is not None and posted.refused:
            self.posted = replace(posted, refused=self.refusal(posted.job))

    def refusal(self, job: Job) -> str:
        """Why this peer will not run a job that came from the network, or ''.

        Such a job runs no code and reads no files that this peer's owner did not choose.
        """
        named = job.local_names(own_data=self._own_data)
        unknown = [name for name in named if name not in self._allowed]
        if not unknown:
            return ""
        return (
            f"the network's job wants to use {', '.join(unknown)} of this machine, which this"
            " peer's owner has not allowed; to allow it add it to learner.allow in gossipd.toml"
        )
