"""A short way for the one kind of request that a busy client sends over and over.

gunicorn reads any HTTP there is, in a thread that has to be woken and waited for, and that
costs more than the webhook's whole decision. A POST of JSON as kube-apiserver writes it, on
a connection that has been used before, is read here instead: by the thread that waits for
all connections, as far as it has come, without ever waiting for the rest. Whatever is not
exactly that is left to gunicorn, byte for byte: this is no second opinion on what HTTP allows.
"""

import logging
import re
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final, NamedTuple

log = logging.getLogger(__name__)


class PlainAnswer(NamedTuple):
    """What a plain request is answered.

    Attributes:
        body: JSON, sent with status 200.
        afterwards: What the client need not wait for, such as a line of the log.
    """

    body: bytes
    afterwards: Callable[[], None]


PlainApp = Callable[[str, bytes], PlainAnswer | None]
"""(path, body) → the answer; None leaves the request to gunicorn. Runs where every other connection
waits for it: it has to know without asking or waiting."""

MAX_BODY_BYTES: Final = 64 * 2**10
"""Of requests that are read here: each of thousands of connections may have one under way. Those
that are larger hold one of gunicorn's threads, of which there are few."""
_READ_BYTES: Final = 65536
_HEAD = re.compile(
    rb"POST (/[a-z/]{1,64})(?:\?timeout=[0-9a-z]{1,8})? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z-]{1,32}: [\x20-\x7e]{1,512}\r\n){1,16})\r\n"
)
_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 1024
"""Four times what kube-apiserver sends."""
_EXPECTED: Final = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"content-type", b"content-length"}
)
"""What kube-apiserver sends. Any other field, such as Transfer-Encoding, may change the rest."""
_JSON: Final = b"application/json"
_DIGITS = re.compile(rb"[0-9]{1,7}")
_NOT_NOW: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class Next(Enum):
    """What is to be done with a connection."""

    WAIT = auto()
    """Nothing, until more comes."""
    GONE = auto()
    """Close it: the client has left."""
    GUNICORN = auto()
    """A thread: for what gunicorn is to read, or for the rest of an answer (`send_rest`)."""


class PlainStream:
    """The plain requests of one connection; used by one thread at a time."""

    def __init__(self, app: PlainApp, sock: Any, unreader: Any) -> None:
        """Take a connection whose handshake is done.

        Args:
            app: What answers.
            sock: Not blocking while `go_on` runs.
            unreader: gunicorn's buffer of the connection; takes back what is not for us.
        """
        self._app = app
        self._sock = sock
        self._unreader = unreader
        self._parts: list[bytes] = []
        self._missing = 0
        self._path = ""
        self._body_at = 0
        self._unsent = b""

    def go_on(self) -> Next:
        """Answer the requests that have come; keep what has come of the next one."""
        while True:
            try:
                piece: bytes = self._sock.recv(_READ_BYTES)
            except _NOT_NOW:
                return Next.WAIT
            except OSError:
                return Next.GONE
            if not piece:
                return Next.GONE
            if not self._parts and not self._begin(piece):
                self._unreader.unread(piece)
                return Next.GUNICORN
            self._parts.append(piece)
            self._missing -= len(piece)
            if self._missing <= 0:
                then = self._answer()
                # What TLS has decrypted already makes no socket readable.
                if then is not None:
                    return then

    def give_back(self) -> None:
        """Leave what has come of a request to gunicorn."""
        if self._parts:
            self._unreader.unread(b"".join(self._parts))
            self._parts = []

    def send_rest(self) -> bool:
        """Send what the client was too slow for, on a socket that blocks now.

        Returns:
            Whether there was any.

        Raises:
            OSError: The connection broke.
        """
        rest, self._unsent = self._unsent, b""
        if rest:
            self._sock.sendall(rest)
        return bool(rest)

    def _begin(self, piece: bytes) -> bool:
        """Whether a plain request begins so."""
        end = piece.find(_END, 0, _MAX_HEAD_BYTES)
        known = _read_head(piece[: end + len(_END)]) if end >= 0 else None
        if known is None:
            return False
        self._path, length = known
        self._body_at = end + len(_END)
        self._missing = self._body_at + length
        return True

    def _answer(self) -> Next | None:
        """Answer a request that is complete; None when the next one may be there already."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        end = len(data) + self._missing
        try:
            found = self._app(self._path, data[self._body_at : end])
        except Exception:
            log.exception("a plain request failed")
            found = None
        if found is None:
            self._unreader.unread(data)
            return Next.GUNICORN
        if end < len(data):
            self._unreader.unread(data[end:])
        try:
            self._send(found.body)
        except OSError:
            return Next.GONE
        finally:
            found.afterwards()
        if self._unsent or end < len(data):
            return Next.GUNICORN
        return None if _has_more(self._sock) else Next.WAIT

    def _send(self, body: bytes) -> None:
        """Send as much of an answer as the client takes now; the rest waits for `send_rest`.

        Raises:
            OSError: The connection broke.
        """
        answer = (
            b"HTTP/1.1 200 OK\r\nDate: %b\r\nConnection: keep-alive\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (_date(int(time.time())), len(body), body)
        )
        try:
            sent = self._sock.send(answer)
        except _NOT_NOW:
            sent = 0
        self._unsent = answer[sent:]


def _has_more(sock: Any) -> bool:
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


# A client's heads differ in the length that they tell, and in nothing else.
@lru_cache(maxsize=256)
def _read_head(head: bytes) -> tuple[str, int] | None:
    """The path and the length of the body, if the head is that of a plain request."""
    found = _HEAD.fullmatch(head)
    length = _length(found[2]) if found is not None else None
    return None if found is None or length is None else (found[1].decode("ascii"), length)


def _length(fields: bytes) -> int | None:
    """The body's length, if the header fields are those of a plain request."""
    found: dict[bytes, bytes] = {}
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name not in _EXPECTED or name in found:
            return None
        found[name] = value.strip()
    length = found.get(b"content-length", b"")
    is_plain = (
        b"host" in found
        and found.get(b"content-type") == _JSON
        and _DIGITS.fullmatch(length) is not None
    )
    return int(length) if is_plain and int(length) <= MAX_BODY_BYTES else None


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
