"""HTTP/1.1 over one socket, for a command line that people wait for.

Neither urllib3 nor the standard library's client: each takes longer to import than a person waits
for a completion. Knows no proxies, no redirects and no compression.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Final

from nightcap.closing import Closing

_PIECE_BYTES: Final = 65536
_MOST_LINE_BYTES: Final = 65536
_MOST_HEADERS: Final = 256
_HEXADECIMAL: Final = frozenset("0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def length(self) -> int | None:
        """Bytes that were announced; None if none were."""
        said = self.headers.get("content-length", "")
        return int(said) if said.isdecimal() else None


class Wire(Closing):
    """One connection: a request, its answer, and then the next one."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None,
        connect_seconds: float,
        read_seconds: float,
    ) -> None:
        """Connect.

        Args:
            address: Host and port.
            context: For TLS; None for plain HTTP.
            connect_seconds: How long connecting may take, with all handshakes.
            read_seconds: How long an answer may be silent.

        Raises:
            OSError: it cannot be done, or the certificate is none.
        """
        # A host of bytes is taken as it is; one of text loads the tables of Unicode first.
        host = address[0].encode("ascii")
        plain = socket.create_connection((host, address[1]), connect_seconds)  # type: ignore[arg-type]
        try:
            # Who only listens, as to a live view, would not notice that the network has gone.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = (
                plain if context is None else context.wrap_socket(plain, server_hostname=host)
            )
        except BaseException:
            plain.close()
            raise
        self._socket.settimeout(read_seconds)
        self._read_seconds = read_seconds
        self._file: IO[bytes] = self._socket.makefile("rb")
        self._head: Head | None = None
        self._is_done = True

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def is_usable(self) -> bool:
        """Whether another request may be sent: all was read, and the other side still listens."""
        if not self._is_done or self._file.closed:
            return False
        if self._head is not None and "close" in self._head.headers.get("connection", "").lower():
            return False
        # Readable without a question: it has hung up.
        return not select.select([self._socket], [], [], 0)[0]

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Head:
        """Send a request; its answer's body is read by `pieces`.

        Raises:
            OSError: there is no answer, or what comes is none.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        request = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        self._is_done = False
        try:
            self._socket.sendall(request + b"\r\n" + body)
            self._head = self._read_head()
        except TimeoutError as error:
            raise self._silence() from error
        return self._head

    def pieces(self) -> Iterator[bytes]:
        """The answer's body, as it comes.

        Raises:
            OSError: the connection broke, or was silent for too long.
        """
        head = self._head
        if head is None or self._is_done:
            return
        try:
            if head.status in (204, 304):
                pass
            elif "chunked" in head.headers.get("transfer-encoding", "").lower():
                yield from self._chunks()
            elif head.length is not None:
                yield from self._exactly(head.length)
            else:
                while piece := self._piece(_PIECE_BYTES):
                    yield piece
                return  # its end was the connection's
        except TimeoutError as error:
            raise self._silence() from error
        self._is_done = True

    def _read_head(self) -> Head:
        status = 100
        while status < 200:  # what comes before the answer itself
            version, _, rest = self._line().partition(" ")
            if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
                raise ConnectionError(f"what came is no HTTP: {version[:40]!r}")
            status, headers = int(rest[:3]), {}
            while line := self._line():
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
                if len(headers) > _MOST_HEADERS:
                    raise ConnectionError("the answer has too many headers")
        return Head(status, headers)

    def _line(self) -> str:
        line = self._file.readline(_MOST_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection ended without an answer")
        return line.decode("latin-1").rstrip("\r\n")

    def _chunks(self) -> Iterator[bytes]:
        while True:
            text = self._line().partition(";")[0].strip()
            if not _HEXADECIMAL.issuperset(text) or not text:
                raise ConnectionError(f"a chunk of size {text[:20]!r}")
            size = int(text, 16)
            if not size:
                while self._line():
                    pass
                return
            yield from self._exactly(size)
            self._line()

    def _exactly(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            piece = self._piece(min(left, _PIECE_BYTES))
            if not piece:
                raise ConnectionError(f"the connection ended {left} bytes too early")
            left -= len(piece)
            yield piece

    def _piece(self, most: int) -> bytes:
        piece: bytes = self._file.read1(most)  # type: ignore[attr-defined]
        return piece

    def _silence(self) -> TimeoutError:
        return TimeoutError(f"nothing came for {self._read_seconds:g} s")
