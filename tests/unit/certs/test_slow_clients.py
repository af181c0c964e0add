"""Clients that trickle, stall or stay: they lose their thread, and nobody waits for them."""

import contextlib
import http.client
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import pytest

from tests.patience import eventually
from tests.unit.certs.running import Served
from tests.unit.certs.test_runner import ask
from tests.unit.certs.tls import a_bundle, put_secret, some_roots, trusting
from tests.unit.kube.small_api import SmallApi

THREADS = 4
PATIENCE_SECONDS = 1.5
"""Of the server in these tests; a client waits far longer for what is to come."""
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


class World:
    """A server, and connections to it that are closed at the end."""

    def __init__(self, served: Served, trust: ssl.SSLContext) -> None:
        self.served, self.trust = served, trust
        self.stack = contextlib.ExitStack()

    def connect(self, receive_buffer: int = 0) -> ssl.SSLSocket:
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(20)
        raw.connect(("127.0.0.1", self.served.port))
        return self.stack.enter_context(self.trust.wrap_socket(raw, server_hostname="localhost"))

    def keep(self) -> ssl.SSLSocket:
        """A connection that has had an answer, and is kept."""
        connection = self.connect()
        connection.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        return connection

    def ask(self) -> None:
        """One request of somebody else."""
        connection = http.client.HTTPSConnection(
            "localhost", self.served.port, context=self.trust, timeout=20
        )
        with contextlib.closing(connection):
            ask(connection)


@pytest.fixture
def make(api: SmallApi, start: Callable[..., Served]) -> Iterator[Callable[..., World]]:
    roots = some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    with contextlib.ExitStack() as stack:

        def make_world(**environ: str) -> World:
            served = start(**environ)
            eventually(served.is_listening)
            world = World(served, trusting(roots[1]))
            stack.enter_context(world.stack)
            return world

        yield make_world


@pytest.fixture
def impatient(make: Callable[..., World]) -> World:
    return make(SERVED_PATIENCE=str(PATIENCE_SECONDS))


def is_cut(connection: socket.socket, pieces: Iterator[bytes]) -> bool:
    """Whether a connection ends while it is sent a piece now and then."""
    connection.settimeout(0.1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            connection.sendall(next(pieces))
            if connection.recv(4096) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_head_that_trickles_is_cut(impatient: World) -> None:
    letters = (b"x" for _ in itertools.count())
    assert is_cut(impatient.connect(), itertools.chain([HEAD + b"X: "], letters))


def test_a_body_that_trickles_is_cut(impatient: World) -> None:
    letters = (b"x" for _ in itertools.count())
    head = HEAD + b"Content-Length: 100000\r\n\r\n"
    assert is_cut(impatient.connect(), itertools.chain([head], letters))


@pytest.mark.parametrize("bytes_at_once", [0, 200], ids=["nothing", "a trickle"])
def test_readers_who_take_almost_nothing_lose_their_threads(
    impatient: World, bytes_at_once: int
) -> None:
    readers = [impatient.connect(receive_buffer=4096) for _ in range(THREADS)]
    for reader in readers:
        reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        reader.recv(1)
    impatient.ask()
    until = time.monotonic() + 3 * PATIENCE_SECONDS  # of the slowest of them
    while time.monotonic() < until:
        time.sleep(0.05)
        for reader in readers if bytes_at_once else ():
            with contextlib.suppress(OSError):
                reader.recv(bytes_at_once)
    for reader in readers:
        taken = 0
        with contextlib.suppress(OSError):  # a reset
            while piece := reader.recv(2**16):
                taken += len(piece)
        assert taken < 64 * 2**20


def stalled(world: World, count: int, source: str = "127.0.0.1") -> None:
    """So many connections from an address that stop in the middle of their handshake."""
    for _ in range(count):
        raw = socket.create_connection(("127.0.0.1", world.served.port), 20, (source, 0))
        world.stack.enter_context(raw).sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")


@pytest.mark.parametrize("addresses", [1, 20], ids=["one address", "many"])
def test_stalled_handshakes_hold_no_thread(make: Callable[..., World], addresses: int) -> None:
    """If they did, each for its ten seconds, whoever asks would wait for twenty minutes."""
    world = make()
    for number in range(addresses):
        stalled(world, 500 // addresses, f"127.0.{number}.1")
    for _ in range(3):
        world.ask()


def test_a_stalled_handshake_is_let_go(impatient: World) -> None:
    stalled(impatient, 1)
    raw = socket.create_connection(("127.0.0.1", impatient.served.port), 20)
    impatient.stack.enter_context(raw).sendall(b"\x16\x03\x01\x02")
    assert is_cut(raw, iter(lambda: b"", None))


BEGINNINGS = {
    "nothing after the handshake": b"",
    "half a head": HEAD + b"X: ",
    "a body that nobody wants": (
        b"POST /unwanted HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"
    ),
    "chunks that nobody wants": (
        b"POST /unwanted HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_clients_that_stop_in_the_middle_hold_no_thread(
    make: Callable[..., World], beginning: str
) -> None:
    world = make()
    for _ in range(15 * THREADS):
        world.connect().sendall(BEGINNINGS[beginning])
    for _ in range(3):
        world.ask()


def test_clients_that_stop_in_the_middle_hold_up_no_end(make: Callable[..., World]) -> None:
    """They could have half a minute each, if it did not end."""
    world = make(SERVED_GRACEFUL="60")
    stalled(world, 3)
    halves = [world.connect() for _ in range(3)]
    for half in halves:
        half.sendall(BEGINNINGS["half a head"])
    world.ask()
    world.served.process.terminate()
    for half in halves:
        with contextlib.suppress(OSError):
            half.sendall(b"x")
    assert world.served.process.wait(timeout=20) == 0


def test_while_others_wait_a_body_has_to_come_soon(make: Callable[..., World]) -> None:
    """With a minute each, which they have otherwise, this would take two."""
    world = make(SERVED_HURRY="1")
    for _ in range(2 * THREADS):
        world.connect().sendall(HEAD + b"Content-Length: 9\r\n\r\nhalf")
    world.ask()


def test_an_answer_before_the_body_reaches_whoever_is_still_sending(impatient: World) -> None:
    connection = impatient.connect()
    size = 4 * 2**20
    head = b"POST /unwanted HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    connection.sendall(head)
    for _ in range(64):
        connection.sendall(bytes(size // 64))
    assert connection.recv(4096).startswith(b"HTTP/1.1 403")


def test_a_connection_outlives_a_body_that_was_there_and_not_wanted(
    make: Callable[..., World],
) -> None:
    connection = make().connect()
    for _ in range(3):
        connection.sendall(b"POST /unwanted HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nunread")
        assert connection.recv(4096).startswith(b"HTTP/1.1 403")


def test_a_connection_outlives_a_short_body_that_comes_behind_its_answer(
    make: Callable[..., World],
) -> None:
    connection = make().connect()
    for piece in (b"unread", b"un", b""):
        connection.sendall(b"POST /unwanted HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 403")
        connection.sendall(piece)
        time.sleep(0.05)
        connection.sendall(b"unread"[len(piece) :])
    connection.sendall(HEAD + b"Content-Length: 4\r\n\r\nbody")
    answer = b""
    while b'"size": 4' not in answer:
        answer += (piece := connection.recv(4096))
        assert piece, answer


def test_requests_that_come_in_any_pieces_are_answered(make: Callable[..., World]) -> None:
    """Several in one record, one in many, and the end of one with the beginning of the next."""
    connection = make().connect()
    requests = (HEAD + b"Content-Length: 4\r\n\r\nbody") * 9
    cuts = [0, 7, 60, 61, 62, 150, 310, len(requests)]
    for begin, end in itertools.pairwise(cuts):
        connection.sendall(requests[begin:end])
        time.sleep(0.05)
    answers = b""
    while answers.count(b'"size": 4') < 9:
        answers += connection.recv(4096)
    assert answers.count(b"HTTP/1.1 200") == 9


def test_a_head_without_an_end_is_refused(make: Callable[..., World]) -> None:
    connection = make().connect()
    with contextlib.suppress(OSError):
        for number in range(200):
            connection.sendall((HEAD if not number else b"") + b"X: %b\r\n" % (b"y" * 1000))
    assert connection.recv(4096).startswith(b"HTTP/1.1 431")


def test_clients_that_do_not_close_hold_up_nobody(make: Callable[..., World]) -> None:
    """gunicorn alone waits 2 s for each of them, in the thread that serves all."""
    world = make()
    staying = [world.keep() for _ in range(20)]
    for connection in staying:
        connection.sendall(HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    world.ask()


def test_idle_connections_make_place_for_new_ones(make: Callable[..., World]) -> None:
    world = make(SERVED_CONNECTIONS="20")
    for _ in range(25):
        world.keep()
    silent = [socket.create_connection(("127.0.0.1", world.served.port), 20) for _ in range(25)]
    for each in silent:
        world.stack.enter_context(each)
    world.ask()
