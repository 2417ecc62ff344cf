"""Members, a world of machines without I/O, and a network in memory for the overlay's tests."""

import functools
import hashlib
import importlib.util
import logging
import sys
from base64 import b32encode
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings

from overlay.profile import PROFILES
from overlay.records import Record

settings.register_profile(
    "overlay",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("overlay")


def _load(name):
    """A helper module of this folder (which is no package)."""
    full_name = f"overlay_tests_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            full_name, Path(__file__).with_name(f"{name}.py")
        )
        sys.modules[full_name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full_name]


def _id_of(number):
    digest = hashlib.sha256(f"test peer {number}".encode()).digest()
    return b32encode(digest).decode().rstrip("=").lower()


def _member(number, **changes):
    fields = {
        "peer_id": _id_of(number),
        "name": f"peer{number}",
        "addresses": (f"ws://peer{number}:1",),
        "incarnation": 1,
        "learner": True,
        "part": -1,
    }
    return Record(**{**fields, **changes})


@pytest.fixture(scope="session")
def id_of():
    """id_of(number): a fixed id."""
    return _id_of


@pytest.fixture(scope="session")
def member():
    """member(number, **changes): a fixed record."""
    return _member


@pytest.fixture(scope="session")
def make_world():
    """make_world(seed=…): machines joined in memory under a simulated clock."""
    module = _load("machine_network")
    return functools.partial(module.World, _member)


@pytest.fixture(scope="session")
def make_signed_world(network):
    """make_signed_world(seed=…): the same of certified members, who believe only what is signed."""
    module = _load("machine_network")
    return functools.partial(module.SignedWorld, network)


@pytest.fixture(scope="session")
def memory():
    """The module with the network in memory and a listener that writes down what it hears."""
    return _load("memory_network")


@pytest.fixture(scope="session")
def signed():
    """The module with networks of certified members."""
    return _load("signed_network")


@pytest.fixture(scope="session")
def network(signed):
    """A network of certified members."""
    return signed.SignedNetwork()


@pytest.fixture
def run():
    """run(async_function): under a clock that jumps to the next deadline, for a bounded time."""

    def run(function, *, jump=True, limit_s=300.0):
        async def bounded():
            with trio.fail_after(limit_s):
                await function()

        clock = trio.testing.MockClock(autojump_threshold=0) if jump else None
        trio.run(bounded, clock=clock)

    return run


@pytest.fixture(autouse=True)
def _no_bug_is_logged(caplog):
    """What a peer does is a warning at most: an error in the log is a bug of ours."""
    yield
    errors = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert not errors, "\n".join(f"{r.getMessage()} {r.exc_text or ''}" for r in errors)


@pytest.fixture
def grown_signed(make_signed_world):
    """grown_signed(count): certified members that have settled, with nothing said yet."""

    def grow(count, *, seed=0):
        world = make_signed_world(seed=seed)
        world.grow(count)
        assert world.run_until(world.converged, 30.0) is not None, world
        world.run(PROFILES["lan"].drain_s)
        world.forget_what_was_said()
        assert world.forgers == []
        return world

    return grow
