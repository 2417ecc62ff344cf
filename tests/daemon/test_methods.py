"""The control API's methods about whom this peer trusts, and about what its mixing bears."""

from types import SimpleNamespace

import pytest

from daemon.graph_report import describe
from daemon.learner_process import LearnerDied, LearnerFailed
from daemon.methods import build
from daemon.overlay_api import OverlayApi
from daemon.refusals import (
    BAD_PATH,
    LEARNER_FAILED,
    NOT_TRAINING,
    STORE_FAILED,
    UNKNOWN_PEER,
    RpcError,
)
from daemon.session import NotTraining
from daemon.store import StoreFull
from daemon.training_api import TrustApi
from learner.job import Gossip, Job, Partition, Robust, Training
from overlay.identity import spelled

ME, A, B, C, GONE = ("m" * 52, "a" * 52, "ab" + "b" * 50, "c" * 52, "g" * 52)
NAMES = {ME: "me", A: "ann", B: "bob", C: "ann"}


class Blocks:
    """A session's part in it."""

    def __init__(self):
        self.asked, self.error = [], None
        self.trust = SimpleNamespace(blocked=())

    async def block(self, peer, blocked):
        if self.error:
            raise self.error
        self.asked.append((peer, blocked))
        self.trust.blocked = (peer,) if blocked else ()


@pytest.fixture
def session():
    return Blocks()


@pytest.fixture
def api(session):
    return api_of(session, NAMES)


def api_of(session, names, gone=()):
    records = [SimpleNamespace(peer_id=peer, name=name) for peer, name in names.items()]
    table = SimpleNamespace(records=lambda: records, is_live=lambda peer: peer not in gone)
    overlay = SimpleNamespace(my_id=ME, machine=SimpleNamespace(table=table))
    return TrustApi(SimpleNamespace(session=session, overlay=overlay))


@pytest.mark.parametrize(
    ("word", "peer"),
    [(A, A), ("bob", B), ("ab", B), ("aa", A), ("c", C), (B[:8], B)],
)
async def test_a_peer_is_named_by_id_its_beginning_or_name(api, session, word, peer):
    assert await api.block(word) == {"peer": peer, "blocked": True}
    # By the same words it is taken in again.
    assert await api.unblock(word) == {"peer": peer, "blocked": False}
    assert session.asked == [(peer, True), (peer, False)]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("nobody", "no known peer is called 'nobody'; gossipctl members lists them"),
        ("a", "2 known peers are called 'a'"),
        ("ann", "2 known peers are called 'ann'"),
        ("", "no known peer is"),
        ("x" * 1000, f"'{'x' * 64}'"),
        (ME, "a peer cannot block itself"),
        ("me", "a peer cannot block itself"),
    ],
)
async def test_a_word_that_names_nobody_or_several_is_refused(api, session, word, reason):
    with pytest.raises(RpcError) as caught:
        await api.block(word)
    assert (caught.value.code, caught.value.kind) == (UNKNOWN_PEER, "unknown_peer")
    assert reason in str(caught.value)
    assert session.asked == []


@pytest.mark.parametrize("word", ["c", C[:8], C[:51]])
async def test_who_is_named_like_the_beginning_of_anothers_id_is_not_mistaken_for_it(session, word):
    api = api_of(session, NAMES | {A: word})
    with pytest.raises(RpcError, match="2 known peers are called") as caught:
        await api.block(word)
    assert caught.value.code == UNKNOWN_PEER
    assert session.asked == []


async def test_who_has_gone_does_not_stand_in_the_way_of_who_is_here(session):
    api = api_of(session, NAMES, gone=(A,))
    assert await api.block("ann") == {"peer": C, "blocked": True}
    assert await api.block("a") == {"peer": B, "blocked": True}
    api = api_of(session, NAMES, gone=(A, C))
    with pytest.raises(RpcError, match="2 known peers are called 'ann'"):
        await api.block("ann")


async def test_an_id_may_be_spelled_out_and_a_mistyped_one_is_refused(api, session):
    assert await api.block(spelled(B)) == {"peer": B, "blocked": True}
    assert await api.block(spelled(B).upper()) == {"peer": B, "blocked": True}
    last = spelled(B)[-1]
    mistyped = spelled(B)[:-1] + ("0" if last != "0" else "1")
    with pytest.raises(RpcError, match="was mistyped: its check digits do not fit") as caught:
        await api.block(mistyped)
    assert (caught.value.code, caught.value.kind) == (UNKNOWN_PEER, "unknown_peer")
    assert session.asked == [(B, True), (B, True)]


async def test_an_id_wins_over_a_name(session):
    api = api_of(session, NAMES | {A: C})
    assert await api.block(C) == {"peer": C, "blocked": True}
    assert session.asked == [(C, True)]


async def test_a_blocked_peer_that_is_long_gone_can_be_unblocked(api, session):
    session.trust.blocked = (GONE,)
    assert await api.unblock("gg") == {"peer": GONE, "blocked": False}


async def test_a_block_that_cannot_be_remembered_is_refused(api, session):
    session.error = StoreFull("no space left for the database")
    with pytest.raises(RpcError) as caught:
        await api.block("bob")
    assert (caught.value.code, caught.value.kind) == (STORE_FAILED, "disk_full")


def test_blocking_changes_something():
    table = build(SimpleNamespace(events=None))
    assert not table["train.block"].read_only
    assert not table["train.unblock"].read_only


# The model.


@pytest.mark.parametrize("path", ["m.safetensors", "", "~/m", "/tmp/a\0b", "/tmp/\ud800", "./m"])
@pytest.mark.parametrize("method", ["model.export", "model.import"])
async def test_a_models_path_that_can_be_none_is_refused(path, method):
    table = build(SimpleNamespace(events=None))
    assert not table[method].read_only
    with pytest.raises(RpcError) as caught:
        await table[method].handler(path)
    assert (caught.value.code, caught.value.kind) == (BAD_PATH, "bad_path")


@pytest.mark.parametrize(
    ("error", "code", "data"),
    [
        (NotTraining("off: no learner"), NOT_TRAINING, {}),
        (LearnerFailed("layout", "another model"), LEARNER_FAILED, {"cause": "layout"}),
        (LearnerDied("killed by SIGKILL"), LEARNER_FAILED, {"cause": "died"}),
    ],
)
async def test_an_import_that_fails_says_why(error, code, data):
    async def fail(path):
        raise error

    session = SimpleNamespace(running=lambda: SimpleNamespace(import_model=fail))
    table = build(SimpleNamespace(events=None, session=session))
    with pytest.raises(RpcError, match=str(error)) as caught:
        await table["model.import"].handler("/tmp/m.safetensors")
    assert caught.value.code == code
    assert caught.value.data.items() >= data.items()


# What the mixing graph bears.


@pytest.mark.parametrize(
    ("count", "robust", "shown"),
    [
        (5, Robust(liars=1), {"rule": "nna", "liars": 1, "tolerated": 1, "advice": ""}),
        (5, Robust(liars=2, rule="median"), {"rule": "median", "liars": 2, "tolerated": 1}),
        (3, Robust(liars=1), {"rule": "nna", "liars": 1, "tolerated": 0}),
        (5, Robust(), {"rule": "mean", "liars": 0, "tolerated": 0, "advice": ""}),
        (5, Robust(liars=1, rule="mean"), {"rule": "mean", "liars": 0, "tolerated": 0}),
    ],
)
async def test_topology_says_how_many_liars_are_borne(peers, monkeypatch, count, robust, shown):
    async def at_once(*arguments):
        return describe(*arguments)

    # A process takes real time.
    monkeypatch.setattr("daemon.overlay_api.reported", at_once)
    job = Job(
        robust=robust,
        gossip=Gossip(topology="complete"),
        partition=Partition("iid", count),
        training=Training(min_peers=100),
    )
    async with peers() as start:
        all_of_them = [await start(name) for name in "abcde"[:count]]
        first = all_of_them[0]
        await first.until(lambda: len(first.overlay.links) == count - 1)
        await first.session.jobs.submit(job)
        await first.until(lambda: first.overlay.machine.graph.choice.name == "complete")
        api = OverlayApi(SimpleNamespace(session=first.session, overlay=first.overlay))
        answer = (await api.topology())["robust"]
        assert answer | shown == answer
        assert bool(answer["advice"]) is (answer["liars"] > answer["tolerated"])


async def test_topology_without_a_job_says_nothing_of_liars(peers, monkeypatch):
    async def at_once(*arguments):
        return describe(*arguments)

    # A process takes real time.
    monkeypatch.setattr("daemon.overlay_api.reported", at_once)
    async with peers() as start:
        one = await start("a")
        api = OverlayApi(SimpleNamespace(session=one.session, overlay=one.overlay))
        assert (await api.topology())["robust"] is None
