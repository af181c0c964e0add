"""One HTTP/1.1 connection to a collector, over TLS, from the port that no capture sees.

Small on purpose: http.client alone would cost the pod more memory than all of
the worker's own modules.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

from sidecar import local_port

ANSWER_SECONDS: Final = 10.0
MAX_HEAD_BYTES: Final = 65536
MAX_ANSWER_BYTES: Final = 2**20
_PIECE_BYTES: Final = 64 * 2**10


class ConnectionBroken(Exception):
    """The collector was not reached, did not answer in time, or not in HTTP."""


class Answer(NamedTuple):
    """What the collector said; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str = ""


class Body(NamedTuple):
    """A piece of a file, read while it is sent."""

    fd: int
    offset: int
    size: int


EMPTY: Final = Body(-1, 0, 0)


def trust(ca: str) -> ssl.SSLContext:
    """Trust this root and nobody else.

    Raises:
        ssl.SSLError, ValueError: it is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    return context


class Connection:
    """An open connection; after any `ConnectionBroken` it is of no more use."""

    def __init__(
        self, address: tuple[str, int], *, name: str, context: ssl.SSLContext, port: int
    ) -> None:
        """Connect and prove that the other end is the collector.

        Raises:
            ConnectionBroken
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.address = address
        self._name = name
        self._rest = b""
        raw: socket.socket | None = None
        try:
            raw = local_port.open_socket(family)
            raw.settimeout(ANSWER_SECONDS)
            raw.bind(("", port))
            raw.connect(address)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # As bytes: a string would be looked at by modules for names that are not ASCII.
            self._socket = context.wrap_socket(raw, server_hostname=name.encode("ascii"))
        except (OSError, ValueError) as error:
            if raw is not None:
                raw.close()
            raise ConnectionBroken(f"{address[0]}:{address[1]}: {error}") from error

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = EMPTY
    ) -> Answer:
        """Ask and wait for the answer.

        Raises:
            ConnectionBroken
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._name}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {body.size}", "", ""]
        try:
            self._socket.sendall("\r\n".join(lines).encode("latin-1"))
            self._send_body(body)
        except OSError as error:
            # A collector that refuses may answer before it has read everything, and reset.
            return self._last_words(method, error)
        return self._read(method)

    def _send_body(self, body: Body) -> None:
        offset, end = body.offset, body.offset + body.size
        while offset < end:
            piece = _read_piece(body.fd, min(_PIECE_BYTES, end - offset), offset)
            self._socket.sendall(piece)
            offset += len(piece)

    def _last_words(self, method: str, cause: OSError) -> Answer:
        try:
            answer = self._read(method)
        except ConnectionBroken:
            raise ConnectionBroken(f"sending failed: {cause}") from cause
        return Answer(answer.status, {**answer.headers, "connection": "close"}, answer.text)

    def _read(self, method: str) -> Answer:
        try:
            status, headers = self._read_head()
            size = _body_size(method, status, headers)
            while len(self._rest) < size:
                self._receive()
        except (OSError, ValueError, IndexError) as error:
            raise ConnectionBroken(f"no answer: {error}") from error
        text, self._rest = self._rest[:size], self._rest[size:]
        return Answer(status, headers, text.decode("utf-8", "replace"))

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._rest:
            if len(self._rest) > MAX_HEAD_BYTES:
                raise ValueError("head of the answer is too long")
            self._receive()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        status = int(first.split(" ", 2)[1])
        return self._read_head() if 100 <= status < 200 else (status, headers)

    def _receive(self) -> None:
        received = self._socket.recv(65536)
        if not received:
            raise ValueError("collector closed the connection")
        self._rest += received

    def close(self) -> None:
        """Close, by a reset: nothing is left to be said."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _read_piece(fd: int, size: int, offset: int) -> bytes:
    try:
        piece = os.pread(fd, size, offset)
    except OSError as error:
        raise ConnectionBroken(f"segment cannot be read: {error}") from error
    if not piece:
        raise ConnectionBroken("segment is shorter than it was")
    return piece


def wants_close(answer: Answer) -> bool:
    """Whether the connection ends with this answer."""
    return (
        answer.headers.get("connection", "").lower() == "close"
        or "transfer-encoding" in answer.headers
    )


def _body_size(method: str, status: int, headers: Mapping[str, str]) -> int:
    if method == "HEAD" or status in (204, 304) or "transfer-encoding" in headers:
        return 0  # a chunked answer is not read: the connection is closed after it
    size = int(headers.get("content-length", "0"))
    if not 0 <= size <= MAX_ANSWER_BYTES:
        raise ValueError(f"answer of {size} bytes")
    return size
