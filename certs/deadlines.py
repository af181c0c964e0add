"""Connections that have to get on: whoever sends a request byte by byte does not keep a thread."""

import contextlib
import socket
import threading
from typing import Any, Final

BODY_READ: Final = "nightcap.body_read"
"""In a request's environ, if it has a body: to be called when that was read; else it is cut."""
HEAD_SECONDS: Final = 30.0
"""From the first byte of a request to the last of its head, a TLS handshake included."""
BODY_SECONDS: Final = 60.0
"""From there to the last byte of its body: 4 MiB at 70 kB/s."""


class Deadlines:
    """By when something has to have come; asked by one thread, set by many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, tuple[float, Any]] = {}

    def put(self, connection: Any, until: float) -> None:
        """Cut a connection (of gunicorn: `sock` is its socket) then, by a monotonic clock."""
        with self._lock:
            self._until[id(connection)] = (until, connection)

    def clear(self, connection: Any) -> None:
        """What was waited for has come."""
        with self._lock:
            self._until.pop(id(connection), None)

    def sweep(self, now: float) -> int:
        """Cut those that are late; how many."""
        with self._lock:
            late = [key for key, (until, _) in self._until.items() if now >= until]
            connections = [self._until.pop(key)[1] for key in late]
        for connection in connections:
            with contextlib.suppress(OSError, ValueError):
                # Not the TLS socket's own method: another thread is reading from it.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        return len(connections)
