"""Requests that have to get on: whoever sends a body byte by byte does not keep a thread."""

import contextlib
import socket
import threading
from typing import Any


class Deadlines:
    """By when something has to have come; asked by one thread, set by many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, tuple[float, float, Any]] = {}

    def put(self, connection: Any, until: float, hurried_until: float) -> None:
        """Cut a connection then.

        Args:
            connection: Of gunicorn: `sock` is its socket.
            until: When, by a monotonic clock.
            hurried_until: When, if others wait for its thread.
        """
        with self._lock:
            self._until[id(connection)] = (until, hurried_until, connection)

    def clear(self, connection: Any) -> None:
        """What was waited for has come."""
        with self._lock:
            self._until.pop(id(connection), None)

    def sweep(self, now: float, *, in_a_hurry: bool = False) -> int:
        """Cut those that are late; how many.

        Args:
            now: By the clock of `put`.
            in_a_hurry: Whether others wait for a thread.
        """
        with self._lock:
            late = [
                key
                for key, (until, hurried_until, _) in self._until.items()
                if now >= (hurried_until if in_a_hurry else until)
            ]
            connections = [self._until.pop(key)[2] for key in late]
        for connection in connections:
            with contextlib.suppress(OSError, ValueError):
                # Not the TLS socket's own method: another thread is reading from it.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        return len(connections)
