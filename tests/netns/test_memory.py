"""However many interfaces and packets there are, the worker stays small."""

import re
import time
from pathlib import Path

import pytest

from tests.netns.collector import Collector
from tests.netns.pods import ID, Pod, an_order, wait_for

pytestmark = pytest.mark.netns

_MOST_BYTES = 25 * 10**6
_MOST_FOR_A_MOMENT_BYTES = 30 * 10**6


def memory(pod: Pod, field: str) -> int:
    """`VmRSS` or `VmHWM`, in bytes."""
    assert pod.process is not None
    status = Path(f"/proc/{pod.process.pid}/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


def test_one_capture_under_load_stays_small(shipping_pod: Pod, collector: Collector) -> None:
    pod = shipping_pod
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    for number in range(10):
        pod.link.send(3000, size=1000, first=3000 * number)
        time.sleep(0.1)
    wait_for(lambda: sum(map(len, collector.files(ID).values())) > 10**6, "shipped")
    wait_for(lambda: memory(pod, "VmRSS") <= _MOST_BYTES, "small")
    assert pod.terminate() == 0


def test_many_interfaces_share_one_budget_of_memory(
    shipping_pod: Pod, collector: Collector
) -> None:
    pod = shipping_pod
    addresses = [pod.link.add_interface(f"net{number}", number) for number in range(1, 14)]
    pod.order(an_order(interfaces=()))
    pod.start()
    pod.wait_open()
    with pod.link.peer.socket() as sock:
        for _ in range(1000):
            for address in (pod.link.pod.address, *addresses):
                sock.sendto(bytes(1000), (address, 5353))
            time.sleep(0.001)
    wait_for(lambda: len(collector.segments) > 2, "shipped")
    time.sleep(1)
    opened = [line for line in pod.log() if line["event"] == "interface opened"]
    refused = [line for line in pod.log() if line["event"] == "interface not captured"]
    assert memory(pod, "VmHWM") <= _MOST_FOR_A_MOMENT_BYTES
    wait_for(lambda: memory(pod, "VmRSS") <= _MOST_BYTES, "small again", 45)
    assert (len(opened), len(refused)) == (12, 2)
    assert "all that there is memory for" in refused[0]["message"]
    assert pod.terminate() == 0


def test_eight_captures_fit_one_after_the_other_and_the_next_waits_for_its_place(pod: Pod) -> None:
    def opened() -> int:
        return pod.events().count("interface opened")

    orders = [an_order(id=f"{ID[:-1]}{number}") for number in range(9)]
    pod.order(orders[0])
    pod.start()
    pod.wait_open()
    for count in range(2, 10):
        pod.order(*orders[:count])
        most = min(8, count)
        wait_for(lambda most=most: opened() == most, f"{count} captures")
    wait_for(lambda: "interface not captured" in pod.events(), "the ninth is refused")
    refused = next(line for line in pod.log() if line["event"] == "interface not captured")
    assert (refused["capture"], refused["reason"]) == (orders[8].id, "capture-error")
    assert refused["message"].startswith("8 interfaces are captured in this pod already")
    wait_for(lambda: memory(pod, "VmRSS") <= _MOST_BYTES, "small", 45)
    pod.order(*orders[1:])
    wait_for(lambda: opened() == 9, "the ninth has its place", 10)
    assert pod.terminate() == 0
