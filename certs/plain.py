"""A short way for the one kind of request that a busy client sends over and over.

gunicorn reads any HTTP there is, and that costs more than the webhook's whole decision. A
POST of JSON as kube-apiserver writes it, on a connection that has been used before, is
read here instead. Whatever is not exactly that is left to gunicorn, byte for byte: this
is no second opinion on what HTTP allows.
"""

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

PlainApp = Callable[[str, bytes], bytes | None]
"""(path, body) → the JSON to answer 200 with; None leaves the request to gunicorn."""

MAX_BODY_BYTES: Final = 3 * 2**20
_READ_BYTES: Final = 65536
_HEAD = re.compile(
    rb"POST (/[a-z/]{1,64})(?:\?timeout=[0-9a-z]{1,8})? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z-]{1,32}: [\x20-\x7e]{1,512}\r\n){1,16})\r\n"
)
_EXPECTED: Final = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"content-type", b"content-length"}
)
"""What kube-apiserver sends. Any other field, such as Transfer-Encoding, may change the rest."""
_JSON: Final = b"application/json"
_DIGITS = re.compile(rb"[0-9]{1,7}")


def answer_plain(app: PlainApp, sock: Any, unreader: Any) -> bool | None:
    """Answer the next request of a connection, if it is a plain one.

    Args:
        app: What answers.
        sock: The connection, blocking, with a timeout.
        unreader: gunicorn's buffer of the connection; takes back what is not for us.

    Returns:
        True when it was answered and the connection goes on, False when the client is gone,
        None when gunicorn is to read it.

    Raises:
        OSError: The connection broke.
    """
    if unreader.buf.tell():
        return None
    data: bytes = sock.recv(_READ_BYTES)
    if not data:
        return False
    head = _HEAD.match(data)
    length = _length(head[2]) if head is not None else None
    if head is None or length is None:
        unreader.unread(data)
        return None
    end = head.end() + length
    if len(data) < end:
        parts, have = [data], len(data)
        while have < end:
            part = sock.recv(_READ_BYTES)
            if not part:
                return False
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
    body = app(head[1].decode("ascii"), data[head.end() : end])
    if body is None:
        unreader.unread(data)
        return None
    if len(data) > end:
        unreader.unread(data[end:])
    sock.sendall(
        b"HTTP/1.1 200 OK\r\nDate: %b\r\nConnection: keep-alive\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (_date(int(time.time())), len(body), body)
    )
    return True


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
