"""Which network interfaces there are, and notice when that changes."""

import contextlib
import fcntl
import socket
import struct
from typing import Final

LOOPBACK: Final = "lo"
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
_RTMGRP_LINK: Final = 1


def present() -> dict[str, bool]:
    """Every interface of this network namespace, and whether it is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        return {name: _is_up(sock, name) for _, name in socket.if_nameindex()}


def _is_up(sock: socket.socket, name: str) -> bool:
    request = struct.pack("16sH14x", name.encode(), 0)
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
    except OSError:
        return False  # it went in this moment
    return bool(struct.unpack_from("H", answer, 16)[0] & _IFF_UP)


def default(states: dict[str, bool]) -> list[str]:
    """The interfaces that a capture means when it names none."""
    return [name for name, up in states.items() if up and name != LOOPBACK]


class LinkWatch:
    """Tells that interfaces came, went, or changed.

    Attributes:
        fd: Readable when something changed; -1 when the kernel does not say.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.fd = -1
        with contextlib.suppress(OSError):
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            self._socket.bind((0, _RTMGRP_LINK))
            self.fd = self._socket.fileno()

    def drain(self) -> None:
        """Take note; what exactly changed is read from the kernel's lists."""
        if self._socket is None:
            return
        # ENOBUFS says that news were lost: it is news, too.
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass
