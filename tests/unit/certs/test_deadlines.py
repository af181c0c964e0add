"""A connection that does not get on is cut, whatever trickles in; others are left alone."""

import socket
from types import SimpleNamespace

from certs.deadlines import Deadlines


def test_whoever_is_late_is_cut_and_nobody_else() -> None:
    deadlines = Deadlines()
    pairs = [socket.socketpair() for _ in range(3)]
    late, early, done = [SimpleNamespace(sock=here) for here, _ in pairs]
    deadlines.put(late, 10.0, 3.0)
    deadlines.put(early, 20.0, 12.0)
    deadlines.put(done, 5.0, 1.0)
    deadlines.clear(done)
    pairs[0][1].send(b"x")  # a byte now and then is no progress
    assert deadlines.sweep(9.9) == 0
    assert deadlines.sweep(10.0) == 1
    assert (pairs[0][0].recv(10), pairs[0][0].recv(10)) == (b"x", b"")
    for here, there in pairs[1:]:
        there.send(b"more")
        assert here.recv(10) == b"more"
    # Only if somebody waits for its thread has it less time.
    assert deadlines.sweep(12.0) == 0
    assert deadlines.sweep(11.9, in_a_hurry=True) == 0
    assert deadlines.sweep(12.0, in_a_hurry=True) == 1
    assert deadlines.sweep(30.0) == 0
    for pair in pairs:
        for end in pair:
            end.close()


def test_one_that_is_closed_already_is_no_fault() -> None:
    deadlines = Deadlines()
    here, there = socket.socketpair()
    deadlines.put(SimpleNamespace(sock=here), 1.0, 1.0)
    here.close()
    there.close()
    assert deadlines.sweep(2.0) == 1
    assert deadlines.sweep(2.0) == 0
