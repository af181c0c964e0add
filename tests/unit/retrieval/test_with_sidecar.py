"""A real worker in a network namespace ships to the real collector; a person reads the files."""

import itertools
import json
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from controller.reports import parse_answer
from nightcap.contract.orders import Limit, Rotation
from nightcap.contract.reports import Reason, State
from nightcap.pcap.pcapng import Statistics
from nightcap.pcap.pcapng_reading import PcapngReader
from tests.netns.collector import TOKEN
from tests.netns.net import joined
from tests.netns.pods import ID, Pod, an_order, wait_for
from tests.unit.retrieval.builders import POD
from tests.unit.retrieval.programs import Installation
from tests.unit.retrieval.road import Road

pytestmark = pytest.mark.netns


@pytest.fixture
def road(installation: Installation, tmp_path: Path) -> Iterator[Road]:
    with joined() as link:
        road = Road(installation, link, tmp_path / "pod")
        yield road
        road.close()


def test_a_workers_packets_reach_a_person_though_the_collector_is_killed(road: Road) -> None:
    pod = road.pod
    road.start_collector()
    pod.order(an_order(limit=Limit(bytes=0, packets=3000), rotation=Rotation(max_bytes=30_000)))
    pod.start()
    pod.wait_open()
    pod.link.send(1500)
    time.sleep(1.0)
    road.installation.kill()
    pod.link.send(1500, first=1500)
    road.start_collector()
    assert pod.wait_end(30) == 0, pod.log()
    assert road.numbers() == list(range(3000))
    listed = road.listed()["files"]
    assert [file["file"] for file in listed] == road.archive().namelist()
    assert {file["state"] for file in listed} == {"complete"}
    assert sum(file["packets"] for file in listed) == 3000
    report = road.report()
    assert report is not None
    assert report.shipped


def refusals(pod: Pod) -> list[str]:
    lines = pod.log()
    return [line["answer"] for line in lines if line["event"] == "collector refused, trying again"]


def test_a_token_that_is_not_accepted_is_said_once_and_its_packets_wait(road: Road) -> None:
    pod = road.pod
    del road.api.users[TOKEN, "nightcap"]
    road.start_collector()
    pod.order(an_order(limit=Limit(bytes=0, packets=10)))
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    asked = "/apis/authentication.k8s.io/v1/tokenreviews"
    wait_for(lambda: road.api.asked.count(asked) >= 2, "tried again", 15)
    [said] = refusals(pod)
    assert said.startswith("401 needs the token of a pod")
    assert pod.process is not None
    assert pod.process.poll() is None
    assert road.report() is None
    road.api.add_pod_token(TOKEN, "storefront", "web-0", POD)
    assert pod.wait_end(30) == 0
    assert road.numbers() == list(range(10))


def put_off_at(road: Road) -> list[float]:
    """When the collector answered that it cannot now."""
    lines = map(json.loads, (road.installation.folder / "collector.log").read_text().splitlines())
    return [
        datetime.fromisoformat(line["at"]).timestamp()
        for line in lines
        if line["event"] == "cannot answer now"
    ]


def test_a_sidecar_that_is_put_off_stays_away_for_as_long_as_it_is_told(road: Road) -> None:
    pod = road.pod
    road.start_collector()
    road.api.is_down = True
    pod.order(an_order(limit=Limit(bytes=0, packets=10)))
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    wait_for(lambda: len(put_off_at(road)) >= 3, "put off three times", 30)
    road.api.is_down = False
    assert pod.wait_end(30) == 0
    assert road.numbers() == list(range(10))
    # Its own first waits are half of a second and one, a half more or less.
    assert all(after - at >= 2 for at, after in itertools.pairwise(put_off_at(road)))


def test_which_bytes_a_ring_dropped_is_known_to_everybody(road: Road) -> None:
    """The collector is away for longer than the ring lasts; a segment was half shipped then."""
    pod = road.pod
    road.start_collector()
    ring = Rotation(max_bytes=20_000, max_files=3)
    pod.order(an_order(rotation=ring, limit=Limit(bytes=0, packets=3000)))
    pod.start()
    pod.wait_open()
    pod.link.send(50)
    growing = "storefront", ID, POD, "eth0"
    folder = road.installation.store.joinpath(*growing)
    half = 24 + 50 * (16 + 42 + 64)
    wait_for(lambda: any(path.stat().st_size == half for path in folder.glob("*")), "half of one")
    # Sometimes before the sidecar is told: then it has to ask what became of its half.
    road.installation.kill()
    for first in range(50, 3050, 300):
        pod.link.send(300, first=first)
        time.sleep(0.05)  # what is in the kernel's ring is not lost by ours
    wait_for(lambda: "capture finished" in pod.events(), "all recorded")
    road.start_collector()
    assert pod.wait_end(40) == 0, pod.log()

    report = road.report()
    assert report is not None
    assert (report.packets, report.dropped, report.shipped) == (3000, 0, True)
    [gap] = report.lost.gaps
    kept = {int(path.stem): path.stat().st_size for path in folder.glob("*.pcap")}
    assert (gap.interface, gap.first, gap.offset) == ("eth0", 0, kept[0])
    assert sorted(kept) == [0, *range(gap.last + 1, max(kept) + 1)]
    assert gap.last + 1 == report.lost.segments > 3
    assert gap.bytes == report.lost.bytes == report.bytes - sum(kept.values())
    numbers = road.numbers()
    first, last = numbers[:50], numbers[50:]
    assert first == list(range(50))
    assert last == list(range(3000))[-len(last) :]

    # The controller, a person who lists the files, and whoever opens the merged file.
    _, [item] = parse_answer(road.reports())
    assert item.report.lost == report.lost
    [missing] = road.listed()["missing"]
    assert missing == {"pod": "web-0", "node": "node-a", **gap._asdict()}
    merged = road.get("/v1/namespaces/storefront/packetcaptures/dns/merged.pcapng")
    path = road.pod.folder / "merged.pcapng"
    path.write_bytes(merged)
    with path.open("rb") as file:
        [counters] = [value for value in PcapngReader(file) if isinstance(value, Statistics)]
    assert any(f"{gap.bytes} bytes" in comment for comment in counters.comments)


def has_shipped(road: Road, packets: int) -> bool:
    report = road.report()
    return report is not None and report.shipped and report.packets == packets


def test_a_capture_that_is_resumed_counts_on(road: Road) -> None:
    """Its entry had left the orders: the controller takes it out once it is shipped."""
    pod = road.pod
    road.start_collector()
    pod.order(an_order(limit=Limit(bytes=0, packets=100)))
    pod.start()
    pod.wait_open()
    pod.link.send(100)
    assert pod.wait_end(30) == 0
    wait_for(partial(has_shipped, road, 100), "shipped")
    pod.order_text("")
    pod.start()
    assert pod.wait_end(10) == 0

    pod.order(an_order(limit=Limit(bytes=0, packets=250)))
    pod.start()
    wait_for(lambda: pod.events().count("interface opened") == 2, "open again")
    pod.link.send(300, first=100)
    assert pod.wait_end(30) == 0
    wait_for(partial(has_shipped, road, 250), "shipped again")
    report = road.report()
    assert report is not None
    assert (report.state, report.reason) == (State.FINISHED, Reason.PACKETS)
    # What the kernel let in after the limit was reached is counted, and not recorded.
    assert report.received - report.dropped >= 250
    assert report.bytes == sum(file["size"] for file in road.listed()["files"])
    assert road.numbers() == list(range(250))
