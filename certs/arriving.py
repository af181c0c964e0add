"""A connection as far as it has come: no thread waits for a handshake, or for a request's head.

gunicorn reads both in a thread that waits for every next byte, so that whoever stops in the
middle keeps one. Here a thread takes what is there and leaves; the connection waits where
thousands of idle ones do, and has its thread when the head of a request is complete.
"""

import ssl
from enum import Enum, auto
from typing import Any, Final

from gunicorn import http, sock
from gunicorn.http.body import LengthReader
from gunicorn.workers.gthread import TConn

HANDSHAKE_SECONDS: Final = 10.0
"""From the connection to the end of its handshake."""
SILENT_SECONDS: Final = 10.0
"""From there to the first byte of its first request."""
HEAD_SECONDS: Final = 30.0
"""From the first byte of a request to the last of its head."""
MAX_HEAD_BYTES: Final = 2**16
"""Tokens of identity providers can be long; our own report header is 4 KiB."""
_MAX_STEPS: Final = 256
"""Pieces in which a handshake and a head may come; each costs a thread's attention."""
_READ_BYTES: Final = 2**14
_SKIP_BYTES: Final = 2**16
"""So much of a body that nobody reads is waited for, so that the connection can be kept."""
_END: Final = b"\r\n\r\n"
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)


class Arrived(Enum):
    """How far a connection is."""

    READY = auto()
    """The head of a request is there."""
    WAITING = auto()
    """For more to come."""
    REFUSED = auto()
    """It was told so: close it when it has read that."""
    GONE = auto()
    """It cannot be used any more."""


class Connection(TConn):  # type: ignore[misc]
    """gunicorn's connection; `come` is called by one thread at a time.

    Attributes:
        due_at: Until when it may be waited for, by the clock of `come`.
        unwanted: Bytes of the last request's body that nobody reads, and that are still to come.
        left_bytes: How many came after the last answer.
    """

    def __init__(self, cfg: Any, connected: Any, client: Any, server: Any, now: float) -> None:
        super().__init__(cfg, connected, client, server)
        self.sock: Any
        self.data_ready = True  # gunicorn is not to wait for its first byte
        self.due_at = now + HANDSHAKE_SECONDS
        self.left_bytes = 0
        self.unwanted = 0
        self._is_wrapped = False
        self._head = bytearray()
        self._steps = 0
        self._was_ready = False

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head has come."""
        return bool(self._head)

    def come(self, now: float) -> Arrived:
        """Take what has come, without waiting for more; a head that is complete is gunicorn's."""
        self._steps += 1
        try:
            if not self.initialized:
                self._shake_hands(now)
            arrived = self._take_head(now)
        except (ssl.SSLWantReadError, BlockingIOError):
            is_late = now >= self.due_at or self._steps >= _MAX_STEPS
            return Arrived.GONE if is_late else Arrived.WAITING
        except OSError:  # TLS errors are some
            return Arrived.GONE
        self._steps = 0
        return arrived

    def _shake_hands(self, now: float) -> None:
        if not self._is_wrapped:
            self.sock = sock.ssl_wrap_socket(self.sock, self.cfg)
            self._is_wrapped = True
        self.sock.setblocking(False)
        self.sock.do_handshake()
        self.parser = http.get_parser(self.cfg, self.sock, self.client)
        self.initialized = True
        self.due_at = now + SILENT_SECONDS

    def _take_head(self, now: float) -> Arrived:
        self.sock.setblocking(False)
        head = self._head
        while self.unwanted:
            skipped = len(self.sock.recv(min(self.unwanted, _READ_BYTES)))
            if not skipped:
                return Arrived.GONE
            self.unwanted -= skipped
        if self._was_ready and not head:
            self.due_at = now + HEAD_SECONDS
        piece: bytes = self.parser.unreader.take_buffered()
        looked = 0
        while True:
            if piece and not head:
                self.due_at = now + HEAD_SECONDS
            head += piece
            # A bare line feed gunicorn refuses as soon as it sees one.
            if head.find(_END, max(0, looked - 3)) >= 0 or head.count(b"\n") != head.count(b"\r\n"):
                return self._hand_over()
            if len(head) > MAX_HEAD_BYTES:
                self.sock.send(_TOO_LARGE)
                return Arrived.REFUSED
            looked = len(head)
            piece = self.sock.recv(_READ_BYTES)
            if not piece:
                return self._hand_over() if head else Arrived.GONE

    def _hand_over(self) -> Arrived:
        self.parser.unreader.unread(bytes(self._head))
        self._head.clear()
        self._was_ready = True
        return Arrived.READY

    def read_body(self, into: memoryview) -> int:
        """Read of a body whose length is known what there is room for; `RequestBody.into`."""
        reader, unreader = self.parser.mesg.body.reader, self.parser.unreader
        into = into[: reader.length]
        piece: bytes = unreader.take_buffered()
        count = min(len(piece), len(into))
        into[:count] = piece[:count]
        unreader.unread(piece[count:])
        while count < len(into) and (came := self.sock.recv_into(into[count:])):
            count += came
        reader.length -= count
        return count

    def skip_body(self, now: float) -> bool:
        """Read no more of the body; whether the connection can carry another request after it.

        What is still to come of a short one is `unwanted`: its client may have sent it already.
        """
        body = self.parser.mesg.body
        if body.failed:
            return False
        reader = body.reader
        if not isinstance(reader, LengthReader):
            return reader.parser is None  # chunks: read to their end
        unreader = self.parser.unreader
        piece: bytes = unreader.take_buffered()
        unreader.unread(piece[reader.length :])
        left = max(0, reader.length - len(piece))
        if left > _SKIP_BYTES:
            return False
        reader.length = 0
        self.unwanted += left
        self.due_at = now + HEAD_SECONDS
        return True
