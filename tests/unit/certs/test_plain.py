"""The short way, on real sockets with gunicorn's own buffer behind it."""

import socket
import threading

import pytest
from gunicorn.http.unreader import SocketUnreader

from certs.plain import MAX_BODY_BYTES, answer_plain

HEAD = (
    "POST /mutate/privileged?timeout=3s HTTP/1.1\r\n"
    "Host: nightcap-webhook.nightcap-system.svc:443\r\n"
    "User-Agent: kube-apiserver-admission\r\n"
    "Content-Length: {length}\r\n"
    "Accept: application/json, */*\r\n"
    "Content-Type: application/json\r\n"
    "Accept-Encoding: gzip\r\n"
    "\r\n"
)


def a_request(body: bytes = b'{"a":1}', head: str = HEAD) -> bytes:
    return head.format(length=len(body)).encode() + body


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    yield ours, theirs
    ours.close()
    theirs.close()


class App:
    def __init__(self):
        self.asked = []

    def __call__(self, path, body):
        self.asked.append((path, body))
        return None if body == b"no review" else b'{"yes":true}'


def test_what_kube_apiserver_sends_is_answered(pair):
    ours, theirs = pair
    app, unreader = App(), SocketUnreader(ours)
    for _ in range(3):  # one after the other on one connection
        theirs.sendall(a_request())
        assert answer_plain(app, ours, unreader) is True
        head, _, body = theirs.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
        assert head.endswith(b"\r\nContent-Length: 12")
        assert body == b'{"yes":true}'
    assert app.asked == [("/mutate/privileged", b'{"a":1}')] * 3


def test_a_body_that_comes_in_pieces_is_put_together(pair):
    ours, theirs = pair
    app, body = App(), b"x" * 100_000
    request = a_request(body)
    theirs.sendall(request[:1000])
    rest = threading.Thread(target=theirs.sendall, args=(request[1000:],))
    rest.start()
    assert answer_plain(app, ours, SocketUnreader(ours)) is True
    rest.join()
    assert app.asked == [("/mutate/privileged", body)]


def test_what_follows_a_request_is_kept_for_the_next(pair):
    ours, theirs = pair
    unreader = SocketUnreader(ours)
    theirs.sendall(a_request() + b"GET /healthz")
    assert answer_plain(App(), ours, unreader) is True
    assert unreader.buf.getvalue() == b"GET /healthz"
    assert answer_plain(App(), ours, unreader) is None  # gunicorn's now, with what comes
    assert unreader.buf.getvalue() == b"GET /healthz"


OTHERS = {
    "get": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "half-a-head": a_request()[:60],
    "old-version": a_request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "other-query": a_request().replace(b"?timeout=3s", b"?timeout=3s&x=1"),
    "encoded-path": a_request().replace(b"/mutate", b"/%6dutate"),
    "chunked": a_request().replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"),
    "both": a_request().replace(b"\r\nAccept:", b"\r\nTransfer-Encoding: chunked\r\nAccept:"),
    "two-lengths": a_request().replace(b"\r\nAccept:", b"\r\nContent-Length: 9\r\nAccept:"),
    "signed-length": a_request().replace(b"Length: 7", b"Length: +7"),
    "too-long": a_request().replace(b"Length: 7", b"Length: %d" % (MAX_BODY_BYTES + 1)),
    "no-length": a_request().replace(b"Content-Length: 7\r\n", b""),
    "expect": a_request().replace(b"\r\nAccept:", b"\r\nExpect: 100-continue\r\nAccept:"),
    "close": a_request().replace(b"\r\nAccept:", b"\r\nConnection: close\r\nAccept:"),
    "other-type": a_request().replace(b"Type: application/json", b"Type: text/plain"),
    "folded": a_request().replace(b"gzip\r\n", b"gzip\r\n deflate\r\n"),
    "no-space": a_request().replace(b"Host: ", b"Host:"),
    "space-before-colon": a_request().replace(b"Content-Length:", b"Content-Length :"),
    "bare-newline": a_request().replace(b"\r\n", b"\n"),
    "no-host": a_request().replace(b"Host:", b"Accept-Encoding:"),
    "not-ascii": a_request().replace(b"gzip", b"gz\xefp"),
    "not-for-the-app": a_request(b"no review"),
}


@pytest.mark.parametrize("request_bytes", OTHERS.values(), ids=OTHERS.keys())
def test_everything_else_is_left_to_gunicorn_byte_for_byte(pair, request_bytes):
    ours, theirs = pair
    unreader = SocketUnreader(ours)
    theirs.sendall(request_bytes)
    assert answer_plain(App(), ours, unreader) is None
    assert unreader.buf.getvalue() == request_bytes


@pytest.mark.parametrize("sent", [b"", a_request()[:-3]], ids=["at-once", "in-the-body"])
def test_a_client_that_goes_is_no_error(pair, sent):
    ours, theirs = pair
    theirs.sendall(sent)
    theirs.close()
    assert answer_plain(App(), ours, SocketUnreader(ours)) is False
