"""From `PacketCapture` created to the first packet in the file, on a real kubelet, leg by leg."""

import json
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import OrdersWatch, SeenPod, client, namespace, wait_for, watching_orders
from bench.effort import Effort
from bench.result import Result, alone, quantile, say
from bench.watching import Watch, watching
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from tests.e2e.shop import Shop

NAME = "capture-latency"
_GOAL_SECONDS, _GOAL_P95_SECONDS = 0.5, 1.0
_PODS = 6
"""In turn, so that what one pod does to go back to sleep does not hold up the next sample."""
_PACKETS_PER_SECOND = 200
_PAUSE_SECONDS = 0.5
_TALK = (
    "import socket,time\n"
    "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
    "while True:\n"
    f"  s.sendto(b'x',('192.0.2.1',7000));time.sleep({1 / _PACKETS_PER_SECOND})"
)
_NANOSECONDS = 0xA1B23C4D


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds from the moment before the capture was sent to the API server.

    Attributes:
        ordered: A watcher was told that the pod has its orders.
        projected: The kubelet had swapped the orders file.
        opened: The worker had opened the capture.
        recorded: Time stamp of the first packet in the file.
    """

    ordered: float
    projected: float
    opened: float
    recorded: float


def run(effort: Effort) -> Iterator[Result]:
    """The whole way, and each leg's median in the detail."""
    with namespace("bench-latency") as shop:
        samples = _measure(shop, effort.of(120, 12))
    recorded = [sample.recorded for sample in samples]
    p95 = quantile(recorded, 0.95)
    legs = {
        "api_to_orders": [sample.ordered for sample in samples],
        "orders_to_file": [sample.projected - sample.ordered for sample in samples],
        "file_to_open": [sample.opened - sample.projected for sample in samples],
        "open": [sample.opened for sample in samples],
    }
    middle = [f"{quantile(recorded, share):.3f}" for share in (0.25, 0.75)]
    yield alone(
        NAME,
        recorded,
        most=_GOAL_SECONDS,
        goal=f"≤ {_GOAL_SECONDS:g} s median",
        unit="s to the first packet",
        detail={
            "half_of_all_between": middle,
            **{f"{leg}_median": round(quantile(of, 0.5), 3) for leg, of in legs.items()},
            **{f"{leg}_p95": round(quantile(of, 0.95), 3) for leg, of in legs.items()},
        },
    )
    yield Result(
        name=NAME,
        point="95 %",
        ours=round(p95, 3),
        unit="s to the first packet",
        goal=f"≤ {_GOAL_P95_SECONDS:g} s",
        met=p95 <= _GOAL_P95_SECONDS,
        runs=len(recorded),
    )


def _measure(shop: Shop, count: int) -> list[Sample]:
    names = [f"web-{number}" for number in range(_PODS)]
    talker = {
        "name": "app",
        "image": shop.stage.images.app,
        "command": ["python3", "-c", _TALK],
    }
    shop.start(*(shop.pod(name, containers=[talker]) for name in names))
    pods = [SeenPod.find(shop, name) for name in names]
    kube = client(shop.stage)
    samples: list[Sample] = []
    with (
        watching_orders(kube, shop.name) as orders,
        watching(*(pod.orders for pod in pods), *(pod.spool for pod in pods)) as files,
    ):
        for number in range(count):
            pod = pods[number % _PODS]
            orders.wait_none(pod.name)
            _wait_asleep(pod)
            time.sleep(_PAUSE_SECONDS)
            samples.append(_one(kube, shop.name, pod, f"capture-{number}", orders, files))
            last = samples[-1]
            say(
                f"{NAME}: {number + 1} of {count}: orders {last.ordered:.3f}, file "
                f"{last.projected:.3f}, open {last.opened:.3f}, packet {last.recorded:.3f} s"
            )
    return samples


def _one(
    kube: KubeClient, namespace: str, pod: SeenPod, name: str, orders: OrdersWatch, files: Watch
) -> Sample:
    files.next(0)  # what came before is old
    body = {
        "apiVersion": "nightcap.dev/v1alpha1",
        "kind": "PacketCapture",
        "metadata": {"name": name},
        "spec": {"podNames": [pod.name], "filter": "udp port 7000"},
    }
    start = time.time()
    answer = kube.request("POST", paths.packetcaptures(namespace), body=body)
    uid = json.loads(answer)["metadata"]["uid"]
    came = _came(files, [pod.orders / "..data", pod.spool / ".open"])
    ordered = orders.wait(pod.name, uid)
    recorded = _first_packet(pod.spool / uid)
    kube.request("DELETE", paths.packetcapture(namespace, name))
    return Sample(ordered - start, came[0] - start, came[1] - start, recorded - start)


def _came(files: Watch, wanted: Sequence[Path]) -> list[float]:
    """Wall-clock times at which these came, in this order."""
    times: dict[Path, float] = {}
    end = time.monotonic() + 15
    ahead = time.time() - time.monotonic()
    while len(times) < len(wanted):
        if time.monotonic() > end:
            missing = [str(path) for path in wanted if path not in times]
            raise TimeoutError(f"not within 15 s: {', '.join(missing)}")
        for path, at in files.next(1):
            if path in wanted:
                times.setdefault(path, at + ahead)
    return [times[path] for path in wanted]


def _first_packet(folder: Path) -> float:
    """The first record's time stamp, once it has been written."""
    found: list[float] = []

    def look() -> bool:
        for file in folder.glob("*/*.pcap*"):
            with file.open("rb") as opened:
                head = opened.read(40)
            if len(head) == 40:
                magic, seconds, fraction = struct.unpack("<I20xII8x", head)
                found.append(seconds + fraction / (1e9 if magic == _NANOSECONDS else 1e6))
        return bool(found)

    wait_for("the first packet in a file", look, 10)
    return min(found)


def _wait_asleep(pod: SeenPod) -> None:
    """No capture is left in the spool: the worker has nothing more to do."""
    wait_for(
        f"{pod.name} to sleep again",
        lambda: not any(entry.is_dir() for entry in pod.spool.iterdir()),
        60,
    )
