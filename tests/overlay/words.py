"""What members say, in short."""

from overlay.records import Fate, State, Vote
from overlay.wire import News


def told(*records):
    """A message with these records."""
    return News(records, (), ())


def fated(*fates):
    """A message with these fates."""
    return News((), fates, ())


def proven(machine, peer, incarnation=1):
    """The verdict of two of those who observe a peer in the table of `machine`."""
    observers = sorted(machine.graph.observers(peer))[:2]
    return Fate(
        peer, incarnation, State.DEAD, tuple(Vote(o, incarnation, True, b"") for o in observers)
    )


def witnessed(*evidence):
    """A message with these testimonies."""
    return News((), (), evidence)


def subject_and_liar(world):
    """A member, and one of its observers that is linked to a third, who listens."""
    subject = world.peers[1]
    liar = next(p for p in world.up() if p.id in subject.machine.links)
    listener = next(
        p for p in world.up() if p.id in liar.machine.links and p not in (subject, liar)
    )
    return subject, liar, listener
