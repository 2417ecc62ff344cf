"""Whose jobs this peer takes: a job is signed by the peer at which it was submitted, and each owner
says which roles may submit one (`learner.jobs_from`).

Rules kept here:
- an author is judged by what it was when it signed: its certificate may have expired since;
- the jobs of a revoked member count no more, whenever it says that it signed them; whoever gave up
  a key signs its job anew with the next;
- in a network of plain links nobody has a role, and every job counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.notes import JobOffer, Proof
from overlay.certificates import ROLES, read_chain
from overlay.driver import Overlay
from overlay.identity import short
from overlay.notary import Forged

PURPOSE = "job"


class NotAnAuthor(Exception):
    """This peer's role may not submit jobs."""


class Authors:
    """Signs this peer's jobs, and checks those of others."""

    def __init__(self, least: str, overlay: Callable[[], Overlay]) -> None:
        """`least` is the lowest role whose jobs are taken."""
        self.take_from(least)
        self._overlay = overlay

    def take_from(self, least: str) -> None:
        """Another lowest role from now on."""
        self._roles = ROLES[: ROLES.index(least) + 1]

    def sign(self, version: int, text: str) -> Proof:
        """This peer's word that it submits a job now. Raises NotAnAuthor."""
        at = int(time.time())
        proof = Proof(at, *self._overlay().notary.word(PURPOSE, (version, text, at)))
        if reason := self.objection(JobOffer(version, text, proof)):
            raise NotAnAuthor(reason)
        return proof

    def objection(self, offer: JobOffer) -> str:
        """Why a job is not taken from its author, or ''."""
        proof = offer.proof
        words = (offer.version, offer.text, proof.at)
        notary = self._overlay().notary
        try:
            author = notary.author(PURPOSE, words, proof.chain, proof.signature, float(proof.at))
        except Forged as error:
            return str(error)
        if author is None:
            return ""
        if author.role not in self._roles:
            return (
                f"{short(author.peer_id)} is a plain {author.role}, and jobs are taken from"
                f" {' or '.join(self._roles)} here: submit it at one of those, or set"
                " learner.jobs_from at every peer"
            )
        if self._overlay().machine.table.revocations.counts(author):
            return f"its author {short(author.peer_id)} was revoked: submit the job once more"
        return ""

    def is_by_my_old_key(self, proof: Proof) -> bool:
        """Whether this peer, whose job it is, has another key by now."""
        return bool(proof.chain) and read_chain(proof.chain).peer_id != self._overlay().my_id
