"""live: how long after the wire a packet reaches readers of `live.pcapng`, on the real cluster.

Two pods, so that packets of one wait for those of the other; several readers at once. What
stamps a packet is the kernel of the machine that reads it here, so both times are of one clock.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPResponse
from typing import BinaryIO, cast

from bench.cluster import namespace
from bench.effort import Effort
from bench.result import Result, quantile, say, spread
from demo.files import Retrieval, reach_retrieval
from nightcap.pcap.pcapng import Packet
from nightcap.pcap.pcapng_reading import PcapngReader
from tests.e2e.shop import Shop

READERS = 4
GOAL_SECONDS = 2.0
_PODS = ("web", "backend")
_SETTLE_SECONDS = 5.0
"""What was recorded before a reader came is old when it is shown, and is no sample."""
_TALK = (
    "import random,socket,time\n"
    "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
    "while True:\n"
    "  s.sendto(b'x'*100,('192.0.2.1',7000));time.sleep(random.uniform(0,0.2))"
)


class _Stream:
    """What has come of an answer, as a file."""

    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer

    def read(self, count: int) -> bytes:
        return self._answer.read1(count)


def run(effort: Effort) -> Iterator[Result]:
    """The delay of every packet at every reader; its goal is the longest."""
    seconds = effort.of(120, 15)
    with namespace("bench-live") as shop, reach_retrieval(shop.kubectl) as retrieval:
        talker = {
            "name": "app",
            "image": shop.stage.images.app,
            "command": ["python3", "-c", _TALK],
        }
        shop.start(*(shop.pod(name, containers=[talker]) for name in _PODS))
        shop.create(shop.capture("live", filter="udp port 7000"))
        shop.wait_open("live", pods=len(_PODS))
        delays = _watch(shop, retrieval, seconds)
    longest = max(delays)
    yield Result(
        name="live",
        point=f"{len(_PODS)} pods, {READERS} readers, the longest",
        ours=round(longest, 3),
        unit="s after the wire",
        goal=f"≤ {GOAL_SECONDS:g} s",
        met=longest <= GOAL_SECONDS,
        runs=len(delays),
        spread=spread(delays),
        detail={
            "median": round(quantile(delays, 0.5), 3),
            "p95": round(quantile(delays, 0.95), 3),
            "p99": round(quantile(delays, 0.99), 3),
        },
    )


def _watch(shop: Shop, retrieval: Retrieval, seconds: float) -> list[float]:
    token = shop.person("analyst", "nightcap-files")
    path = f"/v1/namespaces/{shop.name}/packetcaptures/live/live.pcapng"
    delays: list[list[float]] = [[] for _ in range(READERS)]
    from_ns = time.time_ns() + int(_SETTLE_SECONDS * 1e9)
    ended = threading.Event()

    def read(answer: HTTPResponse, found: list[float]) -> None:
        # What it needs of a file is `read`.
        for value in PcapngReader(cast("BinaryIO", _Stream(answer))):
            now_ns = time.time_ns()
            if isinstance(value, Packet) and value.time_ns and value.time_ns >= from_ns:
                found.append((now_ns - value.time_ns) / 1e9)
            if ended.is_set():
                return

    with ExitStack() as stack:
        threads = []
        for found in delays:
            connection = stack.enter_context(closing(retrieval.connect()))
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            threads.append(threading.Thread(target=read, args=(answer, found)))
            threads[-1].start()
        time.sleep(_SETTLE_SECONDS + seconds)
        ended.set()
        for thread in threads:
            thread.join()
    for number, found in enumerate(delays):
        say(f"live: reader {number}: {len(found)} packets, the longest {max(found):.3f} s")
    return [delay for found in delays for delay in found]
