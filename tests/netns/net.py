"""Network namespaces of the test's own: a pod and a peer, joined by a veth pair."""

import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")
_numbers = itertools.count()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Namespace:
    name: str
    address: str
    address_6: str

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *arguments]

    def ip(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)

    def inside(self, make: Callable[[], _T]) -> _T:
        """What `make` gives when it is called in this namespace; its sockets stay there."""
        made: list[_T] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            fd = os.open(Path("/run/netns", self.name), os.O_RDONLY)
            try:
                if libc.setns(fd, _CLONE_NEWNET) == 0:
                    made.append(make())
            finally:
                os.close(fd)

        # A thread is a task of its own to the kernel: this process stays where it is.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket of this namespace; it stays there whoever uses it."""
        return self.inside(lambda: socket.socket(family, kind))


@dataclass(frozen=True)
class Link:
    pod: Namespace
    peer: Namespace

    def send(self, count: int, *, port: int = 5353, size: int = 64, first: int = 0) -> None:
        """Numbered packets from the peer to the pod."""
        with self.peer.socket() as sock:
            sock.connect((self.pod.address, port))
            for number in range(first, first + count):
                try:
                    sock.send(number.to_bytes(8, "big").ljust(size, b"."))
                except ConnectionRefusedError:
                    sock.send(number.to_bytes(8, "big").ljust(size, b"."))

    def add_interface(self, name: str, subnet: int) -> str:
        """One more pair; the peer's end is called the same. Returns the pod's address there."""
        self.pod.ip("link", "add", name, "type", "veth", "peer", name, "netns", self.peer.name)
        for namespace, host in ((self.pod, 1), (self.peer, 2)):
            namespace.ip("address", "add", f"10.77.{subnet}.{host}/24", "dev", name)
            namespace.ip("link", "set", name, "up")
        return f"10.77.{subnet}.1"


@contextmanager
def joined() -> Iterator[Link]:
    """A pod with `lo` and `eth0`, and a peer on the other end."""
    number = next(_numbers)
    names = [f"nightcap-{os.getpid()}-{number}-{side}" for side in ("pod", "peer")]
    pod = Namespace(names[0], "10.77.0.1", "fd77::1")
    peer = Namespace(names[1], "10.77.0.2", "fd77::2")
    try:
        for namespace in (pod, peer):
            ip("netns", "add", namespace.name)
            namespace.ip("link", "set", "lo", "up")
        pod.ip("link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", peer.name)
        for namespace in (pod, peer):
            namespace.ip("address", "add", f"{namespace.address}/24", "dev", "eth0")
            namespace.ip("address", "add", f"{namespace.address_6}/64", "dev", "eth0", "nodad")
            namespace.ip("link", "set", "eth0", "up")
        yield Link(pod, peer)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
