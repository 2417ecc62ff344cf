import dataclasses

import pytest

from overlay.profile import PROFILES, Profile

# As the docstrings and docs/failure-detection.md promise: beats and trips, then lan, local, wan.
SECONDS = {
    "heartbeat_s": (1, 0, 1.0, 0.5, 2.0),
    "trip_s": (0, 1, 0.1, 0.1, 0.5),
    "silence_shortest_s": (2, 2, 2.2, 1.2, 5.0),
    "silence_longest_s": (3, 5, 3.5, 2.0, 8.5),
    "probe_s": (0, 5, 0.5, 0.5, 2.5),
    "hard_wait_s": (0, 10, 1.0, 1.0, 5.0),
    "lapse_s": (0, 10, 1.0, 1.0, 5.0),
    "suspicion_shortest_s": (0, 8, 0.8, 0.8, 4.0),
    "suspicion_longest_s": (0, 48, 4.8, 4.8, 24.0),
    "dial_timeout_s": (2, 10, 3.0, 2.0, 9.0),
    "quick_dial_s": (0, 3, 0.3, 0.3, 1.5),
    "redial_first_s": (0, 3, 0.3, 0.3, 1.5),
    "redial_last_s": (8, 0, 8.0, 4.0, 16.0),
    "courtesy_s": (0, 5, 0.5, 0.5, 2.5),
    "heal_s": (4, 0, 4.0, 2.0, 8.0),
    "drain_s": (3, 0, 3.0, 1.5, 6.0),
    "settled_s": (0, 5, 0.5, 0.5, 2.5),
    "founding_s": (0, 30, 3.0, 3.0, 15.0),
    "flush_s": (0, 0.5, 0.05, 0.05, 0.25),
    "goodbye_s": (0, 5, 0.5, 0.5, 2.5),
}


def constants(profile):
    """Every time constant by its name."""
    named = [f.name for f in dataclasses.fields(Profile)]
    named += [name for name, value in vars(Profile).items() if isinstance(value, property)]
    return {name: getattr(profile, name) for name in named}


@pytest.mark.parametrize("name", SECONDS)
def test_each_constant_has_the_documented_seconds(name):
    *_, lan, local, wan = SECONDS[name]
    found = [getattr(PROFILES[which], name) for which in ("lan", "local", "wan")]
    assert found == pytest.approx([lan, local, wan])


@pytest.mark.parametrize("name", SECONDS)
def test_each_constant_is_its_formula_of_beats_and_trips(name):
    beats, trips, *_ = SECONDS[name]
    found = getattr(Profile(heartbeat_s=1000.0, trip_s=1.0), name)
    assert found == pytest.approx(1000 * beats + trips)


def test_the_table_above_has_every_constant():
    assert set(constants(Profile())) == set(SECONDS)


def test_there_are_two_figures_and_lan_is_the_default():
    assert [field.name for field in dataclasses.fields(Profile)] == ["heartbeat_s", "trip_s"]
    assert Profile() == PROFILES["lan"]
    assert set(PROFILES) == {"lan", "local", "wan"}


@pytest.mark.parametrize(("name", "limit_s"), [("lan", 5.0), ("local", 5.0), ("wan", 15.0)])
def test_a_silent_member_is_found_in_time(name, limit_s):
    """Silence, the others' look, and the time to refute of a doubt that a quorum shares."""
    profile = PROFILES[name]
    found = profile.silence_longest_s + profile.probe_s + profile.suspicion_shortest_s
    assert found <= limit_s


@pytest.mark.parametrize("name", PROFILES)
def test_constants_that_wait_for_one_another_are_in_order(name):
    profile = PROFILES[name]
    assert all(seconds > 0 for seconds in constants(profile).values())
    assert profile.heartbeat_s < profile.silence_shortest_s < profile.silence_longest_s
    # A doubt is shared within a probe, and must not lapse before.
    assert profile.probe_s < profile.lapse_s
    assert profile.hard_wait_s <= profile.lapse_s
    # A refutation comes back within a round through the overlay: 6 hops there and back.
    assert profile.suspicion_shortest_s > 6 * profile.trip_s
    assert profile.suspicion_shortest_s < profile.suspicion_longest_s
    # A quick look and its repetition are over before the others' doubt lapses.
    assert profile.quick_dial_s + profile.flush_s < profile.lapse_s
    assert profile.flush_s < profile.trip_s <= profile.quick_dial_s < profile.dial_timeout_s
    assert profile.redial_first_s < profile.redial_last_s
    # Candidates are heard of many times while the founding waits.
    assert profile.founding_s >= 5 * 1.5 * profile.redial_first_s
