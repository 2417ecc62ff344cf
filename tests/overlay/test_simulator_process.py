from overlay.simulator.process import SimulatedPeer


def test_a_stopped_process_does_in_order_when_it_is_resumed_what_waited():
    peer, done = SimulatedPeer(1, "id", "address", None), []
    peer.do(done.append, 1)
    peer.stopped = True
    peer.do(done.append, 2)
    peer.do(done.append, 3)
    assert done == [1]
    peer.resume()
    assert done == [1, 2, 3]


def test_a_killed_process_does_nothing_not_even_what_waited():
    peer, done = SimulatedPeer(1, "id", "address", None), []
    peer.stopped = True
    peer.do(done.append, 1)
    peer.running = False
    peer.resume()
    peer.do(done.append, 2)
    assert done == []
