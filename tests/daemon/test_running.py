"""A running daemon as a whole: what SIGHUP changes, and that it stays changed."""

import dataclasses
import logging
from types import SimpleNamespace

import pytest

from daemon import node as composition
from daemon.config import Config
from daemon.credentials import Credentials
from daemon.events import EventLog
from daemon.running import RELOADED, Node
from daemon.store import Store
from learner.schema import SchemaError


@pytest.fixture(autouse=True)
def _log_level():
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def changed(config, **parts):
    """The configuration with other values: part={key: value}."""
    made = {
        part: dataclasses.replace(getattr(config, part), **keys) for part, keys in parts.items()
    }
    return dataclasses.replace(config, **made)


@pytest.fixture
def config(tmp_path):
    return changed(Config(), node={"data_dir": str(tmp_path)})


@pytest.fixture
def node(config, tmp_path):
    """A node that read `config`, and reads node.next when it is told to."""
    store = Store(tmp_path / "state.db")
    made = Node(config, store, Credentials(tmp_path), EventLog(), lambda: made.next())
    made.session.overlay = SimpleNamespace(links={})
    yield made
    store.close()


def test_what_can_change_while_running_does_and_the_rest_is_said(node, config):
    node.next = lambda: changed(
        config,
        node={"log_level": "debug", "name": "another"},
        learner={"allow": ("m:f",), "nice": 7},
    )
    node.reload()
    assert node.config == changed(config, node={"log_level": "debug"}, learner={"allow": ("m:f",)})
    assert logging.getLogger().level == logging.DEBUG
    (event,) = node.events.since(0)
    assert (event.kind, event.data) == (
        "config.reloaded", {"needs_restart": ["node.name", "learner.nice"]},
    )  # fmt: skip


def test_a_mistake_changes_nothing(node, config):
    def mistaken():
        raise SchemaError("unknown key")

    node.next = mistaken
    node.reload()
    assert node.config == config
    assert [event.kind for event in node.events.since(0)] == ["config.rejected"]


def test_reloaded_keys_exist(config):
    for dotted in RELOADED:
        part, key = dotted.split(".")
        assert hasattr(getattr(config, part), key)


async def test_a_daemon_that_starts_over_keeps_what_was_reloaded(config, monkeypatch):
    lives = []

    async def live(node, job, ready):
        lives.append(node.config)
        node.session.overlay = SimpleNamespace(links={})
        node.reload()
        node.wants_restart = len(lives) < 2

    monkeypatch.setattr(composition, "_live", live)
    new = changed(config, learner={"allow": ("m:f",)})
    await composition.run_node(config, None, lambda node: None, lambda: new)
    assert lives == [config, new]
