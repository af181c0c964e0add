"""The tiny HTTP client against a TLS server that says whatever the test wants."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.connection import Answer, Body, Connection, ConnectionBroken, trust, wants_close
from sidecar.local_port import LocalPort
from tests.netns.collector import NAME, root_pem, server_context

Ask = Callable[..., Answer]


@contextmanager
def answering(tmp_path: Path, *answers: bytes, name: str = NAME) -> Iterator[tuple[str, int]]:
    """A server that reads once before each answer and then closes."""
    context = server_context(tmp_path / "tls", name)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            raw, _ = listening.accept()
            try:
                with context.wrap_socket(raw, server_side=True) as wrapped:
                    for answer in answers:
                        wrapped.recv(65536)
                        wrapped.sendall(answer)
            except OSError:
                return
            finally:
                raw.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()
        thread.join(5)


@pytest.fixture
def port() -> Iterator[int]:
    held = LocalPort()
    yield held.number
    held.close()


def ask(address: tuple[str, int], port: int, count: int = 1, method: str = "PATCH") -> list[Answer]:
    connection = Connection(address, name=NAME, context=trust(root_pem()), port=port)
    try:
        return [connection.request(method, "/v1", {"A": "b"}) for _ in range(count)]
    finally:
        connection.close()


def test_answers_follow_one_another_on_one_connection(tmp_path: Path, port: int) -> None:
    first = b"HTTP/1.1 204 No Content\r\nUpload-Offset: 7\r\n\r\n"
    second = b"HTTP/1.1 409 Conflict\r\ncontent-length: 5\r\nUPLOAD-OFFSET:9\r\n\r\nwrong"
    with answering(tmp_path, first, second, first) as address:
        found = ask(address, port, 3)
    assert [answer.status for answer in found] == [204, 409, 204]
    assert [answer.headers.get("upload-offset") for answer in found] == ["7", "9", "7"]
    assert found[1].text == "wrong"


def test_an_interim_answer_is_passed_over(tmp_path: Path, port: int) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    with answering(tmp_path, interim) as address:
        assert [answer.status for answer in ask(address, port)] == [204]


def test_a_head_has_no_body_whatever_its_length_says(tmp_path: Path, port: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    with answering(tmp_path, head) as address:
        assert [answer.text for answer in ask(address, port, method="HEAD")] == [""]


def test_an_answer_in_chunks_ends_the_connection(tmp_path: Path, port: int) -> None:
    chunked = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with answering(tmp_path, chunked) as address:
        [answer] = ask(address, port)
    assert answer.status == 500
    assert wants_close(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
    ids=lambda answer: answer[:40].decode() or "closed",
)
def test_what_is_no_answer_breaks_the_connection(tmp_path: Path, port: int, answer: bytes) -> None:
    with answering(tmp_path, answer) as address, pytest.raises(ConnectionBroken):
        ask(address, port)


def test_a_server_without_the_pinned_name_is_refused(tmp_path: Path, port: int) -> None:
    with (
        answering(tmp_path, b"", name="g2.collector.nightcap.internal") as address,
        pytest.raises(ConnectionBroken, match="match"),
    ):
        ask(address, port)


def test_nobody_there_is_said(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    with pytest.raises(ConnectionBroken, match=r"127\.0\.0\.1"):
        ask(address, port)


def test_a_segment_that_became_shorter_breaks_the_connection(tmp_path: Path, port: int) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"short")
    fd = os.open(path, os.O_RDONLY)
    with answering(tmp_path, b"") as address:
        connection = Connection(address, name=NAME, context=trust(root_pem()), port=port)
        with pytest.raises(ConnectionBroken, match="shorter"):
            connection.request("PATCH", "/", {}, Body(fd, 0, 100))
        connection.close()
    os.close(fd)


def test_the_local_port_is_held_for_both_families_and_shared_by_connections() -> None:
    held = LocalPort()
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            with socket.socket(family) as stranger, pytest.raises(OSError, match="in use"):
                stranger.bind(("", held.number))
    finally:
        held.close()


@pytest.mark.parametrize("ca", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_bad_root_is_an_error_of_the_kind_that_is_caught(ca: str) -> None:
    with pytest.raises((OSError, ValueError)):
        trust(ca)
