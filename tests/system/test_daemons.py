"""Daemons without learners, as real processes: joining, dying, leaving, coming back."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cli.client import ControlError
from cli.local_peers import PeerFailed, local_peer, wait_until
from overlay.addresses import split_address
from tests.system.swarm import assert_sound, incarnation, is_whole, on_disk, open_swarm, states


def mesh(peers):
    return all(len(peer.call("node.status")["neighbours"]) == len(peers) - 1 for peer in peers)


@pytest.fixture
def swarm(tmp_path_factory):
    with open_swarm(tmp_path_factory.mktemp("d")) as swarm:
        yield swarm


def test_a_killed_daemon_is_known_to_every_survivor_as_dead_and_a_leaver_as_left(swarm):
    first, second, third, fourth = swarm.found(4)
    swarm.kill([third])
    survivors = (first, second, fourth)
    wait_until(lambda: all(states(p)["p2"] == "dead" for p in survivors), 5, "the death is known")
    fourth.process.terminate()
    assert fourth.process.wait(5) == 0
    wait_until(lambda: all(states(p)["p3"] == "left" for p in (first, second)), 5, "the leave")
    kinds = [event["kind"] for event in first.events("member.")]
    assert kinds.count("member.dead") == 1
    assert kinds.count("member.left") == 1


def test_sigterm_leaves_within_five_seconds(swarm):
    peers = swarm.found(2)
    began = time.monotonic()
    for peer in peers:
        peer.process.terminate()
    assert [peer.process.wait(5) for peer in peers] == [0, 0]
    assert time.monotonic() - began < 5


def test_a_daemon_that_is_killed_again_and_again_leaves_one_record_and_no_ghosts(swarm):
    """It is itself again each time, and finds its network without being told; as do all at once."""
    peers = swarm.found(4)
    ids = {peer.name: (peer.peer_id, peer.address) for peer in peers}
    wait_until(lambda: all(remembers(peer, 3) for peer in peers), 5, "the tables are on disk")
    restless, witness = peers[2], peers[1]
    lives = [incarnation(witness, restless)]
    for _ in range(3):
        swarm.kill([restless])
        restless = swarm.start(restless.name)
        lives.append(next_life(restless, witness, lives[-1]))
    wait_until(lambda: saved_incarnation(restless) >= lives[-1], 5, "its last life is on disk")
    swarm.kill(swarm.peers.values())
    peers = swarm.start_all([lambda name=name: swarm.start(name) for name in ids])
    wait_until(lambda: is_whole(peers), 15, "one network, linked as it should be")
    assert {peer.name: (peer.peer_id, peer.address) for peer in peers} == ids
    for peer in peers:
        known = sorted(m["peer"] for m in peer.call("overlay.members"))
        assert known == sorted(peer.peer_id for peer in peers)
        assert incarnation(peer, restless) > lives[-1]
    assert_sound(peers)


def next_life(peer, witness, last):
    """The incarnation that a restarted peer has, once the witness knows."""
    wait_until(lambda: incarnation(witness, peer) > last, 5, f"{peer.name}'s next life is known")
    return incarnation(witness, peer)


def remembers(peer, members):
    """Whether a daemon's member table is on disk."""
    return on_disk(peer, "SELECT count(*) FROM members") == members


def saved_incarnation(peer):
    return int(on_disk(peer, "SELECT value FROM meta WHERE key = 'incarnation'"))


def test_two_daemons_never_share_a_data_directory(network):
    first = network.start("a", "--no-learner")
    with (
        pytest.raises(PeerFailed, match="in use by another gossipd"),
        local_peer("a", first.data_dir, ["--no-learner"]),
    ):
        pass
    assert first.call("node.status")["members"] == 1


def test_a_lone_founder_may_join_another_network_and_a_member_may_not(network):
    first = network.start("a", "--no-learner")
    second = network.start("b", "--no-learner", alone=True)
    with pytest.raises(ControlError, match="certificate is not of this network"):
        second.call("overlay.join", address=first.address)
    pid = second.call("node.info")["pid"]
    joined = second.call("overlay.join", address=first.ticket)
    assert joined == {"peer": None, "network": first.facts["network"], "restarting": True}
    wait_until(lambda: linked_by(first, second), 10, "a and b are linked")
    info = second.call("node.info")
    assert (info["network"], info["role"]) == (first.facts["network"], "member")
    assert (info["pid"], info["peer"]) == (pid, second.peer_id)
    third = network.start("c", "--no-learner", alone=True)
    fourth = network.start("d", "--no-learner", alone=True)
    fourth.call("overlay.join", address=third.ticket)
    wait_until(lambda: linked_by(third, fourth), 10, "c and d are linked")
    with pytest.raises(ControlError, match="belongs to network"):
        fourth.call("overlay.join", address=first.ticket)
    # A ticket of the network that it is in already is an address.
    assert fourth.call("overlay.join", address=third.ticket)["peer"] == third.peer_id


def linked_by(first, second):
    """Whether two daemons are linked; the second one may be restarting its links."""
    status = second.ask("node.status")
    return status is not None and status["neighbours"] == [first.peer_id] and mesh([first, second])


def test_a_join_that_nobody_answers_says_so(network):
    peer = network.start("a", "--no-learner")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ControlError, match=r"refused.*is a gossipd running there"):
        peer.call("overlay.join", address=f"wss://127.0.0.1:{port}")
    with pytest.raises(ControlError, match="write wss://host:port"):
        peer.call("overlay.join", address="somewhere")


UPGRADE = (
    b"GET /control HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: gossipd.1\r\n\r\n"
)
NOISE = [
    os.urandom(4096),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    # …and, unasked, the header of a binary frame that claims one gigabyte.
    UPGRADE + b"\x82\xff" + (1 << 30).to_bytes(8) + b"mask" + bytes(200_000),
]


def test_noise_on_the_peer_port_costs_the_noisy_connection_only(swarm):
    """Before TLS, and inside it from somebody who shows no certificate."""
    first, second = swarm.found(2)
    before = first.call("node.status")["rss_bytes"]
    with ThreadPoolExecutor(2 * len(NOISE)) as pool:
        talks = [
            pool.submit(answer_to, first, data, tls=tls)
            for data in NOISE
            for tls in (None, nobody())
        ]
    assert all(isinstance(talk.result(), bytes) for talk in talks)
    assert mesh([first, second])
    assert first.call("node.status")["rss_bytes"] - before < 20_000_000


def nobody():
    """TLS without a certificate, that takes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def answer_to(peer, data, *, tls=None, most=1000):
    """What a daemon's peer port says to some bytes until it closes, in at most so many pieces."""
    said = b""
    plain = socket.create_connection(split_address(peer.address), timeout=10)
    with (
        tls.wrap_socket(plain) if tls else plain as sock,
        contextlib.suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError),
    ):
        sock.sendall(data)
        while most > 0 and (piece := sock.recv(65536)):
            said += piece
            most -= 1
    return said


def test_a_tracker_runs_where_torch_is_not_installed(tmp_path):
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'sklearn'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from cli.gossipd import main\n"
        f"main(['start', '--json', '--no-learner', '--listen', '127.0.0.1:0',"
        f" '--data-dir', {str(tmp_path / 'd')!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert json.loads(process.stdout.readline())["listen"].startswith("wss://127.0.0.1:")
        process.terminate()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_daemons_that_were_all_told_to_join_each_other_found_one_network(swarm):
    ports = []
    for _ in range(4):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    join = [flag for port in ports for flag in ("--join", f"ws://127.0.0.1:{port}")]

    def start(port):
        return swarm.start(f"p{port}", "--insecure", "--listen", f"127.0.0.1:{port}", *join)

    peers = swarm.start_all([lambda port=port: start(port) for port in ports])
    wait_until(lambda: mesh(peers), 15, "a full mesh of four")
    networks = {peer.call("node.status")["network"] for peer in peers}
    assert len(networks) == 1
    assert "" not in networks
    for peer in peers:
        assert "links are PLAIN: neither encrypted nor authenticated" in peer.log
        assert not peer.call("node.status")["encrypted"]
        with pytest.raises(ControlError, match="plain links"):
            peer.call("network.invite")
