"""Who is in a network, with real daemons: tickets, roles, revocations, new keys, renewals."""

import dataclasses
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from cli.client import ControlError
from cli.local_peers import local_peer, wait_until
from tests.system.swarm import is_whole, links, on_disk, open_swarm

# The `local` profile finds the dead in seconds; torch takes seconds to import.
KNOWN_S, TRAINS_S = 10.0, 40.0


@pytest.fixture
def swarm(tmp_path_factory):
    with open_swarm(tmp_path_factory.mktemp("n")) as swarm:
        yield swarm


def ctl(peer, *words, check=True):
    """What gossipctl prints; (exit code, what it says of a failure) if not to be checked."""
    command = [sys.executable, "-m", "cli.gossipctl", "--data-dir", str(peer.data_dir), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if not check:
        return done.returncode, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


def whole(*peers):
    wait_until(lambda: is_whole(peers), KNOWN_S, "one network, linked as it should be")


def refused(name, folder, *flags):
    """What a daemon says that does not start; its exit code."""
    command = [
        sys.executable, "-m", "cli.gossipd", "start", "--no-learner", "--listen", "127.0.0.1:0",
        "--data-dir", str(folder / name), *flags,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr.splitlines()[-1]


def test_an_invited_peer_is_a_member_and_a_ticket_serves_once(swarm):
    first = swarm.start("first")
    ticket = ctl(first, "invite", "--ttl", "10m").strip()
    second = swarm.start("second", "--join", ticket)
    whole(first, second)
    for peer in (first, second):
        head, *rows = ctl(peer, "members").splitlines()
        assert {"ROLE", "CERTIFIED"} <= set(head.split())
        shown = {row.split()[1]: row for row in rows}
        assert "founder" in shown["first"]
        assert "member  " in shown["second"]
        assert all("90 days" in row and "wss://127.0.0.1:" in row for row in rows)
    assert "member, certified for 90 days" in ctl(second, "status")

    assert refused("third", swarm.folder, "--join", ticket) == (
        1,
        "gossipd: cannot start: the ticket is refused: the ticket was used already: ask for a new"
        " one",
    )
    altered = ticket[:40] + ("A" if ticket[40] != "A" else "B") + ticket[41:]
    code, words = refused("fourth", swarm.folder, "--join", altered)
    assert (code, "the ticket is damaged: copy the whole of it once more" in words) == (2, True)
    for text in (first.log, second.log, str(first.events("")), str(second.events(""))):
        assert ticket[40:] not in text
    # Its own command line, with the used ticket in it, serves a restarted daemon.
    swarm.kill([second])
    whole(first, swarm.start("second", "--join", ticket))


def test_an_issuer_invites_while_the_founder_is_dead_and_a_member_cannot(swarm):
    founder, issuer, member = swarm.found(3)
    swarm.kill([founder])
    code, words = ctl(member, "invite", check=False)
    assert code == 1
    assert "this peer is no issuer: ask the founder" in words
    code, words = ctl(issuer, "invite", "--role", "issuer", check=False)
    assert (code, "only the network's founder appoints issuers" in words) == (1, True)
    file = swarm.folder / "job.toml"
    file.write_text('name = "for all"\n')
    code, words = ctl(member, "job", "submit", str(file), check=False)
    assert code == 1
    assert "is a plain member, and jobs are taken from founder or issuer here" in words
    ctl(issuer, "job", "submit", str(file))
    late = swarm.start("late", "--join", ctl(issuer, "invite").strip())
    whole(issuer, member, late)
    assert late.call("node.info")["network"] == founder.facts["network"]
    # The founder comes back and believes whom the issuer let in, and what it submitted.
    founder = swarm.start("p0")
    whole(founder, issuer, member, late)
    for peer in (member, late, founder):
        wait_until(lambda peer=peer: peer.call("job.show")["version"] == 1, KNOWN_S, "the job")
        assert peer.call("job.show")["author"] == issuer.peer_id


def test_a_revoked_member_is_out_everywhere_and_stays_out(swarm):
    founder, issuer, out = swarm.found(3)
    assert "revoked" in ctl(issuer, "revoke", "p2", "--reason", "lost laptop")
    wait_until(
        lambda: links(out) == set() and out.peer_id not in links(founder) | links(issuer),
        KNOWN_S,
        "its links are gone everywhere",
    )
    assert out.call("node.status")["revoked"] == "lost laptop"
    assert "REVOKED: lost laptop; it comes back with a new ticket" in ctl(out, "status")
    whole(founder, issuer)

    everybody = (founder, issuer, out)
    wait_until(lambda: all(map(remembers_one, everybody)), KNOWN_S, "it is on their disks")
    swarm.kill(everybody)
    founder, issuer, out = swarm.start_all(
        [lambda name=name: swarm.start(name) for name in ("p0", "p1", "p2")]
    )
    whole(founder, issuer)
    wait_until(
        lambda: out.call("node.status")["revoked"] == "lost laptop", KNOWN_S, "it still knows"
    )
    assert links(out) == set()
    for word in (founder.address, founder.ticket):
        with pytest.raises(ControlError, match="this peer was revoked: end it, and start it again"):
            out.call("overlay.join", address=word)
    assert out.peer_id not in links(founder) | links(issuer)

    # Whoever put it out changes its key, and is put out itself: nobody lets it in for that.
    new = issuer.call("network.rotate")["peer"]
    wait_until(lambda: links(founder) == {new}, KNOWN_S, "the issuer is back under its new id")
    assert "revoked" in ctl(founder, "revoke", new)
    wait_until(lambda: links(founder) == set(), KNOWN_S, "and is out")
    assert out.events("network.reinstated") == []
    assert out.peer_id not in {event["data"]["peer"] for event in founder.events("member.returned")}
    states = {m["peer"]: m["state"] for m in founder.call("overlay.members")}
    assert {states.get(out.peer_id, "revoked"), states[new]} == {"revoked"}
    assert out.call("node.status")["revoked"] == "lost laptop"

    # With a new ticket it is somebody else.
    swarm.kill([issuer, out])
    back = swarm.start("p2", "--join", founder.ticket)
    assert back.peer_id != out.peer_id
    whole(founder, back)


def remembers_one(peer):
    """Whether a revocation is on a daemon's disk."""
    return on_disk(peer, "SELECT count(*) FROM revocations") == 1


def test_a_certificate_renews_itself_and_the_links_stay_up(swarm):
    config = swarm.folder / "gossipd.toml"
    config.write_text(f"[overlay]\ncertificate_days = {5 / 86400}\n")
    first = swarm.start("first", "--config", str(config))
    second = swarm.start("second", "--join", first.ticket)
    whole(first, second)
    peers = (first, second)
    end = max(expires_at(peer) for peer in peers)
    wait_until(lambda: time.time() > end, 10, "the first certificates have expired")
    for peer in peers:
        assert peer.events("certificate.renewed")
        assert peer.events("link.down") == peer.events("certificate.not_renewed") == []
        assert all(member["expires_at"] > end for member in peer.call("overlay.members"))
    # New links are made with the new certificates.
    third = swarm.start("third", "--join", first.ticket)
    whole(first, second, third)


def expires_at(peer):
    return peer.call("node.info")["certificate_expires_at"]


JOB = """
name = "rotation"
seed = 3
[model]
name = "linear"
[partition]
parts = 2
[training]
rounds = 100000
local_steps = 5
checkpoint_every = 5
"""


def test_a_new_key_is_a_new_id_in_the_same_network_and_training_goes_on(tmp_path_factory):
    folder = tmp_path_factory.mktemp("r")
    (folder / "job.toml").write_text(JOB)
    with ExitStack() as stack:
        first = stack.enter_context(
            local_peer("first", folder / "first", ["--job", str(folder / "job.toml")])
        )
        second = stack.enter_context(
            local_peer("second", folder / "second", ["--join", first.ticket])
        )
        wait_until(lambda: (checkpoint(second) or 0) >= 10, TRAINS_S, "it has a checkpoint")
        before, saved = second.call("node.info"), checkpoint(second)
        answer = second.call("network.rotate")
        assert answer["before"] == second.peer_id != answer["peer"]
        wait_until(lambda: who(second) == answer["peer"], KNOWN_S, "it runs under its new id")
        renewed = dataclasses.replace(second, facts={**second.facts, "peer": answer["peer"]})
        wait_until(
            lambda: links(first) == {renewed.peer_id} and links(second) == {first.peer_id},
            KNOWN_S,
            "they are linked again",
        )
        after = second.call("node.info")
        assert [after[key] for key in ("network", "pid", "name", "listen")] == [
            before[key] for key in ("network", "pid", "name", "listen")
        ]
        wait_until(lambda: rounds(second) > saved, TRAINS_S, "training goes on")
        (resumed,) = second.events("train.resumed")
        assert resumed["data"]["round"] >= saved
        members = {m["peer"]: m for m in first.call("overlay.members")}
        assert members[answer["peer"]]["state"] == "alive"
        assert second.peer_id not in members or members[second.peer_id]["state"] != "alive"
        assert "certified for" in ctl(second, "status")


def who(peer):
    """Under which id a daemon runs; None while it restarts its links."""
    info = peer.ask("node.info")
    return info and info["peer"]


def checkpoint(peer):
    return peer.call("train.status")["checkpoint_round"]


def rounds(peer):
    status = peer.ask("train.status")
    return status["round"] if status else 0
