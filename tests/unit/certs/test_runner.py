"""gunicorn as we run it, in a process of its own, with clients that never pause."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from certs.bundle import Pair
from nightcap.contract.paths import collector_name
from nightcap.kube import paths
from tests.patience import eventually
from tests.unit.certs.running import Served
from tests.unit.certs.tls import (
    NAMESPACE,
    a_bundle,
    put_secret,
    serial_shown,
    some_roots,
    trusting,
)
from tests.unit.kube.small_api import SmallApi

SECRETS_PATH = paths.secrets(NAMESPACE)


@pytest.fixture
def listening(api: SmallApi, start: Callable[..., Served]) -> tuple[Served, Pair]:
    """A server with a certificate, and its root."""
    roots = some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    served = start()
    eventually(served.is_listening)
    return served, roots[1]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def ask(connection: http.client.HTTPSConnection, path: str = "/", body: bytes = b"x") -> Any:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    assert response.status == 200
    return json.loads(data)


@dataclass
class Load:
    """Clients without a pause: half keep their connection, half make a new one each time.

    Half of both ask what is answered on the short way, wherever a connection is kept.
    """

    port: int
    context: ssl.SSLContext
    answered: int = 0
    answered_plain: int = 0
    errors: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        kinds = [(keep, path) for keep in (True, False) for path in ("/", "/plain")]
        self.threads = [threading.Thread(target=self._run, args=kind) for kind in kinds]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)

    def _run(self, keep: bool, path: str) -> None:
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.context, timeout=10
        )
        try:
            while not self.stopping.is_set():
                is_plain = "plain" in ask(connection, path)
                self.answered += 1
                self.answered_plain += is_plain
                if not keep:
                    connection.close()
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()


def test_nobody_listens_before_there_is_a_certificate(
    api: SmallApi, start: Callable[..., Served]
) -> None:
    served = start()
    eventually(lambda: "waiting for a certificate" in served.events())
    assert not served.is_listening()
    roots = some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    eventually(served.is_listening)
    connection = http.client.HTTPSConnection(
        "localhost", served.port, context=trusting(roots[1]), timeout=10
    )
    answer = ask(connection, body=b"y" * 100_000)
    connection.close()
    assert answer == {"size": 100_000, "in_worker": True, "swaps": 0}


def test_program_that_waits_for_a_certificate_can_be_stopped(start: Callable[..., Served]) -> None:
    served = start()
    eventually(lambda: "waiting for a certificate" in served.events())
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(5) == 0


def test_worker_that_was_killed_comes_back_with_the_certificate_of_now(
    api: SmallApi, listening: tuple[Served, Pair]
) -> None:
    """The parent, from which a new worker is made, has the one of the program's start."""
    served, root = listening
    first, _ = serial_shown(served.port, trusting(root))
    (worker,) = children_of(served.process.pid)
    api.answers["GET", SECRETS_PATH] = [(503, {})]  # no list and no watch: one look has to do
    put_secret(api, a_bundle({1: root}, 1))
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: children_of(served.process.pid) not in ([], [worker]))
    assert serial_shown(served.port, trusting(root))[0] != first


def test_certificates_change_under_load_without_a_lost_request(
    api: SmallApi, start: Callable[..., Served]
) -> None:
    roots = some_roots(1, 2)
    put_secret(api, a_bundle({1: roots[1]}, 1))
    served = start()
    eventually(served.is_listening)
    everybody = trusting(roots[1], roots[2])
    serials = {serial_shown(served.port, everybody)[0]}
    with Load(served.port, everybody) as load:
        changes = [({1: roots[1]}, 1), (roots, 1), (roots, 2), ({2: roots[2]}, 2)]
        for generations, current in changes:
            time.sleep(0.3)
            put_secret(api, a_bundle(generations, current))
            eventually(lambda: serial_shown(served.port, everybody)[0] not in serials)
            serials.add(serial_shown(served.port, everybody)[0])
        time.sleep(0.3)
    assert load.errors == []
    assert load.answered > 100
    assert load.answered_plain > 20
    assert len(serials) == 5
    serial_shown(served.port, trusting(roots[2]), collector_name(2))


def test_clients_that_say_nothing_keep_nobody_waiting(
    listening: tuple[Served, Pair],
) -> None:
    """gunicorn alone gives each of them a thread for 5 s: 40 on 4 threads are 50 s."""
    served, root = listening
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 5))
        began_at = time.monotonic()
        connection = http.client.HTTPSConnection(
            "localhost", served.port, context=trusting(root), timeout=30
        )
        ask(connection)
        connection.close()
        assert time.monotonic() - began_at < 2


def test_clients_that_stop_in_a_plain_request_hold_no_thread(
    listening: tuple[Served, Pair],
) -> None:
    served, root = listening
    context = trusting(root)
    with contextlib.ExitStack() as stack:
        connections = [
            http.client.HTTPSConnection("localhost", served.port, context=context, timeout=10)
            for _ in range(6)  # of 4 threads
        ]
        for connection in connections:
            stack.callback(connection.close)
            ask(connection, "/plain")
            connection.putrequest("POST", "/plain", skip_accept_encoding=True)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "10")
            connection.endheaders(b"half ")
        other = http.client.HTTPSConnection("localhost", served.port, context=context, timeout=10)
        stack.callback(other.close)
        ask(other)
        for connection in connections:
            connection.send(b"other")
            assert json.loads(connection.getresponse().read()) == {"plain": True}


def test_stop_drains_first_and_loses_no_request(
    api: SmallApi, start: Callable[..., Served]
) -> None:
    roots = some_roots(1)
    put_secret(api, a_bundle(roots, 1))
    served = start(drain_seconds=1.5)
    eventually(served.is_listening)
    context = trusting(roots[1])
    kept = http.client.HTTPSConnection("localhost", served.port, context=context, timeout=10)
    ask(kept, "/readyz")
    slow = http.client.HTTPSConnection("localhost", served.port, context=context, timeout=10)
    with Load(served.port, context) as load:
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        kept.request("POST", "/readyz", b"x")
        response = kept.getresponse()
        response.read()
        assert response.status == 503, "not ready from the signal on"
        assert response.headers["Connection"] == "close", "the next request goes elsewhere"
        load.stopping.set()  # new connections were served while draining
        time.sleep(0.6)
        slow.request("POST", "/slow", b"x")  # in flight when the drain ends
        assert slow.getresponse().status == 200
    assert load.errors == []
    assert served.process.wait(10) == 0
    kept.close()
    slow.close()
    assert "stopped" in served.events()


def test_second_signal_ends_the_drain(api: SmallApi, start: Callable[..., Served]) -> None:
    put_secret(api, a_bundle(some_roots(1), 1))
    served = start(drain_seconds=60)
    eventually(served.is_listening)
    time.sleep(0.3)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert served.is_listening()
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(10) == 0
