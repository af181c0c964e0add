"""The command line's HTTP against servers that speak it in every way, and in wrong ones."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nightcap.kube.wire import Head, Wire


@contextmanager
def answering(*answers: bytes) -> Iterator[Wire]:
    """A wire to a server that answers each request with these bytes, and hangs up after all."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with Wire(server.getsockname()[:2], None, 5, 5) as wire:
            yield wire
        thread.join(10)


def ask(wire: Wire) -> tuple[Head, bytes]:
    head = wire.ask("GET", "/x", {"Host": "here"}, b"")
    return head, b"".join(wire.pieces())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(b"Content-Length: 4\r\n\r\nfour", b"four", id="length"),
        pytest.param(b"\r\nto the end", b"to the end", id="to the end"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\none\r\nA\r\n0123456789\r\n0\r\n\r\n",
            b"one0123456789",
            id="chunks",
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: 1\r\n\r\n",
            b"x",
            id="chunks and a trailer",
        ),
    ],
)
def test_bodies_end_in_each_way_that_http_knows(answer: bytes, body: bytes) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n" + answer) as wire:
        head, came = ask(wire)
    assert (head.status, came) == (200, body)


def test_answers_follow_each_other_on_one_wire() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    none = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nETag: x\r\n\r\n"
    with answering(chunks, none, b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nc") as wire:
        assert ask(wire)[1] == b"a"
        assert wire.is_usable()
        assert ask(wire) == (Head(204, {"etag": "x"}), b"")
        assert wire.is_usable()
        assert ask(wire)[1] == b"c"


def test_wire_whose_answer_was_not_read_takes_no_question() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab") as wire:
        wire.ask("GET", "/x", {}, b"")
        assert not wire.is_usable()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(b"", "without an answer", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "is no HTTP: 'SSH-2.0-OpenSSH'", id="other"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", "without an answer", id="cut head"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "5 bytes too early", id="cut body"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
            "5 bytes too early",
            id="cut chunk",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            "without an answer",
            id="no last chunk",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx",
            "size '-1'",
            id="bad chunk",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(300)) + b"\r\n",
            "too many headers",
            id="headers",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "without an answer", id="long"),
    ],
)
def test_what_breaks_off_or_is_no_http_is_an_error(answer: bytes, words: str) -> None:
    with answering(answer) as wire, pytest.raises(ConnectionError, match=words):
        ask(wire)
