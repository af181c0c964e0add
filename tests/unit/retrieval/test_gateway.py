"""The gateway over real sockets on loopback."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from retrieval import gateway
from retrieval.gateway import Gateway, GatewaySettings
from retrieval.settings import BadSettings


class Target:
    """Answers each connection with what it got, upside down, once the other side has ended."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            got = b""
            while chunk := connection.recv(65536):
                got += chunk
            connection.sendall(got[::-1])


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.socket.close()


@contextlib.contextmanager
def running(target_port: int) -> Iterator[int]:
    """A gateway in a thread of its own; its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    loop = asyncio.new_event_loop()
    settings = GatewaySettings(port, "127.0.0.1", target_port)
    server = loop.run_until_complete(Gateway(settings).serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(_settle(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _settle() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.01)


def ask(port: int, body: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_bytes_go_both_ways_and_one_direction_may_end_before_the_other(target: Target) -> None:
    body = bytes(range(256)) * 20_000
    with running(target.port) as port:
        assert ask(port, body) == body[::-1]


def test_connections_do_not_wait_for_one_another(target: Target) -> None:
    with (
        running(target.port) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as idle,
    ):
        idle.sendall(b"first")
        assert ask(port, b"ab") == b"ba"
        idle.shutdown(socket.SHUT_WR)
        assert idle.recv(100) == b"tsrif"


def test_a_target_that_is_away_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
    with running(closed) as port:
        assert ask(port, b"") == b""
    assert "retrieval not reached" in caplog.text


def test_a_connection_on_which_nothing_moves_is_ended(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "IDLE_SECONDS", 0.05)
    with (
        running(target.port) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as idle,
    ):
        assert idle.recv(1) == b""


def test_settings_have_defaults() -> None:
    settings = GatewaySettings.from_environ({})
    assert settings == GatewaySettings(9443, "nightcap-retrieval.nightcap-system.svc", 443)
    given = {"NIGHTCAP_GATEWAY_PORT": "1234", "NIGHTCAP_GATEWAY_TARGET": "10.0.0.1:8444"}
    assert GatewaySettings.from_environ(given) == GatewaySettings(1234, "10.0.0.1", 8444)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NIGHTCAP_GATEWAY_PORT", "0"),
        ("NIGHTCAP_GATEWAY_PORT", "https"),
        ("NIGHTCAP_GATEWAY_TARGET", "host"),
        ("NIGHTCAP_GATEWAY_TARGET", "host:99999"),
        ("NIGHTCAP_GATEWAY_TARGET", ":443"),
    ],
)
def test_wrong_settings_are_named(variable: str, value: str) -> None:
    with pytest.raises(BadSettings, match=variable):
        GatewaySettings.from_environ({variable: value})
