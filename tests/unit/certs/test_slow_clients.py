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
    for reader in readers:
        taken = 0
        with contextlib.suppress(OSError):  # a reset
            while piece := reader.recv(bytes_at_once or 2**16):
                taken += len(piece)
        assert taken < 64 * 2**20


def test_while_others_wait_a_head_has_to_come_soon(make: Callable[..., World]) -> None:
    """With half a minute each, which they have otherwise, this would take as long."""
    world = make()
    for _ in range(2 * THREADS):
        world.connect().sendall(HEAD)
    world.ask()


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
