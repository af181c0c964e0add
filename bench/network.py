"""Two network namespaces joined by a veth pair: a pod that captures, and a peer that sends."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

INTERFACE: Final = "eth0"
_POD_ADDRESS: Final = "10.78.0.1"
_PEER_ADDRESS: Final = "10.78.0.2"
# Nobody's: the pod's stack drops such packets right behind the tap, so that what it would do with
# them (look for a socket, answer that there is none) takes no part in any figure.
_SOMEBODY_ELSE: Final = "02:00:00:00:00:99"


@dataclass(frozen=True, slots=True)
class Link:
    """The names of both namespaces."""

    pod: str
    peer: str
    address: str = _POD_ADDRESS

    def in_pod(self, *command: str) -> list[str]:
        """The command as it runs in the pod's namespace; it keeps its process id."""
        return ["ip", "netns", "exec", self.pod, *command]

    def in_peer(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.peer, *command]

    def received(self) -> int:
        """Packets that the pod's interface was given since it was made."""
        found = json.loads(_ip("-n", self.pod, "-s", "-j", "link", "show", INTERFACE))
        return int(found[0]["stats64"]["rx"]["packets"])


@contextmanager
def joined() -> Iterator[Link]:
    """Make the pair; it is gone afterwards, with everything in it."""
    link = Link(f"nightcap-bench-{os.getpid()}-pod", f"nightcap-bench-{os.getpid()}-peer")
    try:
        for name in (link.pod, link.peer):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip(
            "-n", link.pod, "link", "add", INTERFACE, "type", "veth",
            "peer", INTERFACE, "netns", link.peer,
        )  # fmt: skip
        for name, address in ((link.pod, _POD_ADDRESS), (link.peer, _PEER_ADDRESS)):
            # No link-local address, so no packets but ours.
            _ip("-n", name, "link", "set", INTERFACE, "addrgenmode", "none")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", INTERFACE, "up")
        # The sender's kernel cuts super-frames into packets before they reach the pod.
        _ip("-n", link.peer, "link", "set", INTERFACE, "gso_max_segs", "1")
        _ip(
            "-n", link.peer, "neighbour", "replace", _POD_ADDRESS,
            "lladdr", _SOMEBODY_ELSE, "dev", INTERFACE, "nud", "permanent",
        )  # fmt: skip
        yield link
    finally:
        for name in (link.pod, link.peer):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
