"""The short way, on real sockets with gunicorn's own buffer behind it."""

import socket
import threading

import pytest
from gunicorn.http.unreader import SocketUnreader

from certs.plain import MAX_BODY_BYTES, Next, PlainAnswer, PlainStream

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
    ours.setblocking(False)
    theirs.settimeout(5)
    yield ours, theirs
    ours.close()
    theirs.close()


class App:
    def __init__(self):
        self.asked = []
        self.told = threading.Semaphore(0)

    def __call__(self, path, body):
        self.asked.append((path, body))
        return None if body == b"no review" else PlainAnswer(b'{"yes":true}', self.told.release)


def test_what_kube_apiserver_sends_is_answered(pair):
    ours, theirs = pair
    app = App()
    stream = PlainStream(app, ours, SocketUnreader(ours))
    for _ in range(3):  # one after the other on one connection
        theirs.sendall(a_request())
        assert stream.go_on() is Next.WAIT
        head, _, body = theirs.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
        assert head.endswith(b"\r\nContent-Length: 12")
        assert body == b'{"yes":true}'
    assert app.asked == [("/mutate/privileged", b'{"a":1}')] * 3


def test_a_body_that_comes_in_pieces_is_put_together_without_waiting_for_it(pair):
    ours, theirs = pair
    app, body = App(), b"x" * 60_000
    stream = PlainStream(app, ours, SocketUnreader(ours))
    request = a_request(body)
    for at in range(0, len(request), 7000):
        assert app.asked == []
        theirs.sendall(request[at : at + 7000])
        assert stream.go_on() is Next.WAIT
    assert app.asked == [("/mutate/privileged", body)]


def test_what_follows_a_request_is_kept_for_gunicorn(pair):
    ours, theirs = pair
    unreader = SocketUnreader(ours)
    theirs.sendall(a_request() + b"GET /healthz")
    assert PlainStream(App(), ours, unreader).go_on() is Next.GUNICORN
    assert unreader.buf.getvalue() == b"GET /healthz"
    assert theirs.recv(65536).endswith(b'{"yes":true}')


def test_half_a_request_can_be_left_to_gunicorn(pair):
    ours, theirs = pair
    unreader = SocketUnreader(ours)
    stream = PlainStream(App(), ours, unreader)
    theirs.sendall(a_request()[:-3])
    assert stream.go_on() is Next.WAIT
    stream.give_back()
    assert unreader.buf.getvalue() == a_request()[:-3]


def test_an_answer_that_the_client_does_not_take_waits_for_it_in_a_thread(pair):
    ours, theirs = pair
    answer = b"y" * 4_000_000
    stream = PlainStream(lambda path, body: PlainAnswer(answer, list), ours, SocketUnreader(ours))
    theirs.sendall(a_request())
    assert stream.go_on() is Next.GUNICORN
    ours.settimeout(5)
    sending = threading.Thread(target=stream.send_rest)
    sending.start()
    got = b""
    while len(got) < len(answer):
        got += theirs.recv(2**20)
    sending.join(5)
    assert got.endswith(answer)
    assert stream.send_rest() is False


def test_what_the_client_need_not_wait_for_is_done_when_it_has_its_answer(pair):
    ours, theirs = pair
    seen = []
    answer = PlainAnswer(b"{}", lambda: seen.append(theirs.recv(65536)))
    stream = PlainStream(lambda path, body: answer, ours, SocketUnreader(ours))
    theirs.sendall(a_request())
    assert stream.go_on() is Next.WAIT
    assert seen[0].endswith(b"\r\n\r\n{}")


def test_it_is_done_also_when_the_client_has_gone_before_its_answer(pair):
    ours, theirs = pair
    app = App()
    stream = PlainStream(app, ours, SocketUnreader(ours))
    theirs.sendall(a_request())
    theirs.shutdown(socket.SHUT_RD)
    assert stream.go_on() is Next.GONE
    assert app.told.acquire(blocking=False)


def test_an_error_of_the_app_leaves_the_request_to_gunicorn(pair, caplog):
    ours, theirs = pair
    unreader = SocketUnreader(ours)
    theirs.sendall(a_request())

    def broken(path, body):
        raise KeyError("a fault of ours")

    assert PlainStream(broken, ours, unreader).go_on() is Next.GUNICORN
    assert unreader.buf.getvalue() == a_request()
    assert caplog.records[0].exc_info


WHOLE = {
    "get": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "half-a-head": a_request()[:60],
    "not-for-the-app": a_request(b"no review"),
}
CHANGED = {
    "old-version": (b"HTTP/1.1", b"HTTP/1.0"),
    "other-query": (b"?timeout=3s", b"?timeout=3s&x=1"),
    "encoded-path": (b"/mutate", b"/%6dutate"),
    "chunked": (b"Content-Length: 7", b"Transfer-Encoding: chunked"),
    "signed-length": (b"Length: 7", b"Length: +7"),
    "too-long": (b"Length: 7", b"Length: %d" % (MAX_BODY_BYTES + 1)),
    "no-length": (b"Content-Length: 7\r\n", b""),
    "other-type": (b"Type: application/json", b"Type: text/plain"),
    "folded": (b"gzip\r\n", b"gzip\r\n deflate\r\n"),
    "no-space": (b"Host: ", b"Host:"),
    "space-before-colon": (b"Content-Length:", b"Content-Length :"),
    "bare-newline": (b"\r\n", b"\n"),
    "no-host": (b"Host:", b"Accept-Encoding:"),
    "not-ascii": (b"gzip", b"gz\xefp"),
}
ADDED = {
    "both": b"Transfer-Encoding: chunked",
    "two-lengths": b"Content-Length: 9",
    "expect": b"Expect: 100-continue",
    "close": b"Connection: close",
}


def changed(old: bytes, new: bytes) -> bytes:
    assert old in a_request()
    return a_request().replace(old, new)


OTHERS = {
    **WHOLE,
    **{name: changed(*change) for name, change in CHANGED.items()},
    **{
        name: changed(b"\r\nAccept:", b"\r\n" + field + b"\r\nAccept:")
        for name, field in ADDED.items()
    },
}


@pytest.mark.parametrize("request_bytes", OTHERS.values(), ids=OTHERS.keys())
def test_everything_else_is_left_to_gunicorn_byte_for_byte(pair, request_bytes):
    ours, theirs = pair
    unreader = SocketUnreader(ours)
    theirs.sendall(request_bytes)
    assert PlainStream(App(), ours, unreader).go_on() is Next.GUNICORN
    assert unreader.buf.getvalue() == request_bytes


@pytest.mark.parametrize("sent", [b"", a_request()[:-3]], ids=["at-once", "in-the-body"])
def test_a_client_that_goes_is_no_error(pair, sent):
    ours, theirs = pair
    theirs.sendall(sent)
    theirs.close()
    stream = PlainStream(App(), ours, SocketUnreader(ours))
    assert [stream.go_on(), stream.go_on()][-1] is Next.GONE


def test_a_head_that_is_longer_than_theirs_is_left_to_gunicorn(pair):
    ours, theirs = pair
    app = App()
    unreader = SocketUnreader(ours)
    long = HEAD.replace("kube-apiserver-admission", "x" * 500).replace("*/*", "y" * 500)
    theirs.sendall(a_request(head=long))
    assert PlainStream(app, ours, unreader).go_on() is Next.GUNICORN
    assert app.asked == []
    assert unreader.read() == a_request(head=long)
