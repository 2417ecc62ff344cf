"""One machine by itself: how it gets its links, and what it did."""

import random

from overlay.effects import LinkUp, Received, Report, Send, Wake
from overlay.machine import OverlayMachine
from overlay.profile import PROFILES
from overlay.records import Fate
from overlay.wire import Evidence, Heartbeat, News

LAN = PROFILES["lan"]


def make_machine(member, *, profile=LAN, **changes):
    return OverlayMachine(
        member(0, **changes),
        network_id=member("network").peer_id,
        profile=profile,
        rng=random.Random(1),
        now=0.0,
    )


def link(machine, record, now):
    return machine.handle(LinkUp(record, machine.table.digest, ""), now)


def linked(member, count=4):
    machine = make_machine(member)
    for number in range(1, count):
        link(machine, member(number), 0.0)
    for number in range(1, count):
        machine.handle(Received(member(number).peer_id, Heartbeat(machine.table.digest)), 0.0)
    machine.handle(Wake(), 1.5 * LAN.flush_s)  # the last of the news about them goes out
    return machine


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(kind, effects):
    """What was sent of a kind of message; of a part of the news, one entry a link."""
    messages = [e.message for e in of(Send, effects)]
    parts = {Evidence: "evidence", Fate: "fates"}
    if kind in parts:
        return [item for m in messages if isinstance(m, News) for item in getattr(m, parts[kind])]
    return [message for message in messages if isinstance(message, kind)]


def reported(effects):
    return [effect.kind for effect in of(Report, effects)]
