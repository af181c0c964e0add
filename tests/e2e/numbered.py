"""Numbered packets that a pod sends while something happens, and which of them are in files."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from demo.evidence import CaptureFile
from tests.e2e.shop import Shop

FILTER = "udp port 9"
_SEND = """
import os,socket,time
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
n=0
while not os.path.exists('/tmp/stop'):
    s.sendto(b'%08d'%n,('HOST',9)); n+=1; time.sleep(0.005)
print(n)
"""


@contextmanager
def sending(shop: Shop, pod: str, target: str) -> Iterator[list[int]]:
    """Send 200 a second from pod to pod; afterwards the list holds how many they were."""
    count: list[int] = []

    def send() -> None:
        code = _SEND.replace("HOST", shop.ip(target))
        words = ("-n", shop.name, "exec", pod, "-c", "app", "--", "python3", "-c", code)
        count.append(int(shop.kubectl.run(*words, timeout_seconds=400)))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield count
    finally:
        shop.python(pod, "open('/tmp/stop','w')")
        thread.join()


def numbers_in(files: Iterable[CaptureFile]) -> Counter[int]:
    """How often each number was recorded."""
    return Counter(int(bytes(packet["UDP"].payload)) for file in files for packet in file.packets)
