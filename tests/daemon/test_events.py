import json
import math

import trio

from daemon.events import KEPT, SUBSCRIBER_BUFFER, EventLog


def kinds(events):
    return [event.kind for event in events]


async def take(subscription, count):
    """The next `count` events, under a deadline."""
    found = []
    with trio.fail_after(5):
        async for event in subscription:
            found.append(event)
            if len(found) == count:
                return found


def test_events_are_numbered_from_one_and_timed():
    log = EventLog(clock=lambda: 17.0)
    assert [log.add("a").seq, log.add("b").seq] == [1, 2]
    assert log.since(0)[1].to_json() == {"seq": 2, "at": 17.0, "kind": "b", "data": {}}


def test_only_the_newest_are_kept_and_numbers_go_on():
    log = EventLog()
    for _ in range(KEPT + 5):
        log.add("a")
    kept = log.since(0)
    assert [kept[0].seq, kept[-1].seq, len(kept)] == [6, KEPT + 5, KEPT]


def test_many_events_of_one_kind_do_not_push_out_the_others():
    log = EventLog()
    log.add("member.dead")
    for _ in range(3 * KEPT):
        log.add("train.round")
    assert [e.seq for e in log.since(0, prefix="member.")] == [1]
    numbers = [e.seq for e in log.since(0)]
    assert numbers == sorted(numbers)


def test_events_are_found_by_number_prefix_and_limit():
    log = EventLog()
    for kind in ("link.up", "member.dead", "link.down", "link.up"):
        log.add(kind)
    assert kinds(log.since(1)) == ["member.dead", "link.down", "link.up"]
    assert [e.seq for e in log.since(0, prefix="link.")] == [1, 3, 4]
    assert [e.seq for e in log.since(0, prefix="link.", limit=2)] == [3, 4]
    assert log.since(0, limit=0) == []
    assert log.since(99) == []


def test_what_json_cannot_say_becomes_null():
    log = EventLog()
    event = log.add("round", {"loss": math.nan, "gap": -math.inf, "round": 3, "ok": 0.5})
    assert event.data == {"loss": None, "gap": None, "round": 3, "ok": 0.5}
    json.dumps(event.to_json(), allow_nan=False)


async def test_a_subscriber_gets_what_begins_with_its_prefix_from_now_on():
    log = EventLog()
    log.add("link.up")
    with log.subscribe("link.") as subscription:
        log.add("member.dead")
        log.add("link.down")
        log.add("link.up")
        assert [e.seq for e in await take(subscription, 2)] == [3, 4]


async def test_a_slow_subscriber_is_told_how_many_it_lost_and_nobody_waits():
    log = EventLog()
    with log.subscribe() as slow, log.subscribe("last") as other:
        for _ in range(SUBSCRIBER_BUFFER + 7):
            log.add("a")
        log.add("last")
        assert kinds(await take(other, 1)) == ["last"]
        found = await take(slow, SUBSCRIBER_BUFFER + 1)
        assert kinds(found[-2:]) == ["a", "gap"]
        assert found[-1].data == {"lost": 8}
        log.add("after")
        (after,) = await take(slow, 1)
        assert (after.kind, after.seq) == ("after", SUBSCRIBER_BUFFER + 9)


def test_a_subscription_ends_with_its_block():
    log = EventLog()
    with log.subscribe():
        pass
    log.add("a")
    assert not log._subscriptions
