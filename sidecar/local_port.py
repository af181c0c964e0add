"""The one local TCP port that the worker's uploads leave from, so that filters can leave it out."""

import socket
import struct
from typing import Final

_LINGER_RESET: Final = struct.pack("ii", 1, 0)
_ATTEMPTS: Final = 16


class LocalPort:
    """One TCP port that is ours for as long as the worker lives.

    Attributes:
        number: The port; 0 when none could be had.
    """

    def __init__(self) -> None:
        self.number = 0
        self._held: list[socket.socket] = []
        for _ in range(_ATTEMPTS):
            held = _hold(socket.AF_INET, 0)
            if held is None:
                return
            number = held.getsockname()[1]
            try:
                held_6 = _hold(socket.AF_INET6, number)
            except OSError:
                held.close()  # somebody has it under IPv6: another one
                continue
            self._held = [held] if held_6 is None else [held, held_6]
            self.number = number
            return

    def close(self) -> None:
        """Give the port back."""
        for held in self._held:
            held.close()


def _hold(family: socket.AddressFamily, port: int) -> socket.socket | None:
    """A bound socket; None when the machine has no such family.

    Raises:
        OSError: the port is taken.
    """
    try:
        sock = open_socket(family)
    except OSError:
        return None
    try:
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


def open_socket(family: socket.AddressFamily) -> socket.socket:
    """A TCP socket that may bind the port, too; closing it resets the connection."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Every connection binds the same port; a plain rebind would meet the last one in TIME_WAIT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock
