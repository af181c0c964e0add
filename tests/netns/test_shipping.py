"""What the worker records arrives at a collector byte by byte, once, whatever breaks on the way."""

import io
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from nightcap.contract.captures import FOREVER
from nightcap.contract.orders import Limit, Rotation
from nightcap.contract.reports import Reason, State
from nightcap.contract.uploads import SegmentName
from nightcap.pcap.formats import PcapReader
from tests.netns.collector import TOKEN, Collector, Server, Stored
from tests.netns.pods import ID, ID_2, Pod, an_order, wait_for
from tests.netns.written import numbers

pytestmark = pytest.mark.netns


def arrived(collector: Collector, capture: str = ID) -> list[int]:
    return numbers(*collector.files(capture).values())


def has_arrived(collector: Collector, expected: list[int]) -> bool:
    return arrived(collector) == expected


def is_shipped(collector: Collector, capture: str = ID) -> bool:
    report = collector.report(capture)
    return report is not None and report.shipped


def test_a_capture_arrives_whole_and_the_worker_ends(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(
        an_order(limit=Limit(bytes=0, packets=2000), rotation=Rotation(max_bytes=50_000))
    )
    shipping_pod.start()
    shipping_pod.wait_open()
    wait_for(lambda: collector.report(ID), "first report")
    first = collector.report(ID)
    assert first is not None
    assert first.state is State.WAITING
    shipping_pod.link.send(2500)
    assert shipping_pod.wait_end(15) == 0
    assert arrived(collector) == list(range(2000))
    assert all(stored.complete for stored in collector.segments.values())
    assert collector.tokens == {f"Bearer {TOKEN}"}
    last = collector.report(ID)
    assert last is not None
    assert (last.state, last.reason, last.shipped) == (State.FINISHED, Reason.PACKETS, True)
    assert (last.packets, last.backlog, last.lost.segments) == (2000, 0, 0)
    assert last.bytes == sum(len(data) for data in collector.files(ID).values())
    assert last.received >= 2000
    assert not list(shipping_pod.spool.rglob("*.pcap"))
    assert len(collector.client_ports) == 1


def test_a_segment_is_shipped_while_it_grows_within_two_seconds(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    for first in range(0, 30, 10):
        shipping_pod.link.send(10, first=first)
        expected = list(range(first + 10))
        wait_for(partial(has_arrived, collector, expected), "live", 2)
    assert not any(stored.complete for stored in collector.segments.values())
    assert shipping_pod.terminate() == 0
    assert all(stored.complete for stored in collector.segments.values())
    last = collector.report(ID)
    assert last is not None
    assert (last.state, last.reason, last.shipped) == (State.FINISHED, Reason.TERMINATED, True)


def test_the_upload_is_in_no_capture_whatever_the_filter_says(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(
        an_order(filter="", interfaces=("eth0", "any")),
        an_order(id=ID_2, filter="tcp or vlan"),
    )
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(200)
    wait_for(lambda: len(arrived(collector)) >= 200, "arrived")
    time.sleep(1)
    assert shipping_pod.terminate() == 0
    [port] = collector.client_ports
    for capture, interface in ((ID, "eth0"), (ID, "any"), (ID_2, "eth0")):
        skip = 34 if interface == "eth0" else 40
        for data in collector.files(capture, interface).values():
            for record in PcapReader(io.BytesIO(data)):
                ports = {record.data[skip : skip + 2], record.data[skip + 2 : skip + 4]}
                assert port.to_bytes(2, "big") not in ports


def test_a_collector_is_reached_over_ipv6_too(
    pod: Pod, collector: Collector, tmp_path: Path
) -> None:
    pod.collectors = ((pod.link.peer.address_6, 20443),)
    pod.order(an_order(filter="ip6", limit=Limit(bytes=0, packets=10), interfaces=()))
    with pod.link.peer.socket(socket.AF_INET6, socket.SOCK_STREAM) as listening:
        listening.bind((pod.link.peer.address_6, 20443))
        server = collector.serve(listening, tmp_path / "tls")
        pod.start()
        pod.wait_open()
        wait_for(lambda: collector.report(ID), "connected")
        with pod.link.peer.socket(socket.AF_INET6) as sender:
            for _ in range(10):
                sender.sendto(b"six", (pod.link.pod.address_6, 5353))
        assert pod.wait_end(15) == 0
        server.shutdown()
        server.server_close()
    [port] = collector.client_ports
    for data in collector.files(ID).values():
        records = list(PcapReader(io.BytesIO(data)))
        assert len(records) == 10
        assert all(port.to_bytes(2, "big") not in record.data[54:58] for record in records)


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_before_reading": 3},
        {"cut_after_storing": 3},
        {"statuses": [403, 507]},
        {"forget_bytes": 3000},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_every_byte_arrives_once_whatever_breaks(
    shipping_pod: Pod, collector: Collector, fault: dict[str, object]
) -> None:
    shipping_pod.order(
        an_order(limit=Limit(bytes=0, packets=3000), rotation=Rotation(max_bytes=100_000))
    )
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(1000)
    wait_for(lambda: len(arrived(collector)) >= 1000, "first part")
    for name, value in fault.items():
        setattr(collector.faults, name, value)
    shipping_pod.link.send(2000, first=1000)
    assert shipping_pod.wait_end(20) == 0
    assert arrived(collector) == list(range(3000))
    assert is_shipped(collector)


def test_connections_cut_in_the_middle_are_made_anew_from_the_same_port(
    shipping_pod: Pod, collector: Collector, server: Server
) -> None:
    shipping_pod.order(
        an_order(limit=Limit(bytes=0, packets=5000), rotation=Rotation(max_bytes=100_000))
    )
    shipping_pod.start()
    shipping_pod.wait_open()
    for first in range(0, 5000, 500):
        shipping_pod.link.send(500, first=first)
        time.sleep(0.1)
        server.cut_all()
    assert shipping_pod.wait_end(20) == 0
    assert arrived(collector) == list(range(5000))
    assert len(collector.client_ports) == 1


def test_a_deleted_capture_is_dropped_and_the_other_goes_on(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(100)
    wait_for(lambda: len(arrived(collector)) == 100, "arrived")
    collector.faults.gone = True
    shipping_pod.link.send(100, first=100)
    assert shipping_pod.wait_end() == 0
    assert not list(shipping_pod.spool.rglob("*.pcap*"))
    shipping_pod.start()
    assert shipping_pod.wait_end() == 0
    assert shipping_pod.events().count("capture begun") == 1


def test_a_collector_that_is_away_gets_the_backlog_when_it_is_back(
    pod: Pod, collector: Collector, tmp_path: Path
) -> None:
    pod.collectors = ((pod.link.peer.address, 20444), (pod.link.peer.address, 20443))
    pod.order(an_order(limit=Limit(bytes=0, packets=1000), rotation=Rotation(max_bytes=20_000)))
    pod.start()
    pod.wait_open()
    pod.link.send(1000)
    wait_for(lambda: "collector not reached, trying again" in pod.events(), "said", 15)
    with pod.link.peer.socket(kind=socket.SOCK_STREAM) as listening:
        listening.bind((pod.link.peer.address, 20443))
        server = collector.serve(listening, tmp_path / "tls")
        assert pod.wait_end(20) == 0
        server.shutdown()
        server.server_close()
    lost = collector.report(ID)
    assert lost is not None
    found = arrived(collector)
    assert found == list(range(1000))[-len(found) :]
    assert (lost.lost.segments > 0) == (len(found) < 1000)
    assert lost.packets == 1000


def test_the_earlier_end_that_the_collector_knows_holds(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(10)
    wait_for(lambda: len(arrived(collector)) == 10, "arrived")
    collector.until = int(time.time())
    shipping_pod.link.send(1, first=10)
    assert shipping_pod.wait_end() == 0
    last = collector.report(ID)
    assert last is not None
    assert (last.state, last.reason, last.shipped) == (State.FINISHED, Reason.TIME, True)


def test_a_killed_worker_is_followed_by_one_that_ships_the_rest_once(
    shipping_pod: Pod, collector: Collector
) -> None:
    shipping_pod.order(an_order(rotation=Rotation(max_bytes=100_000)))
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(2000)
    wait_for(lambda: len(arrived(collector)) == 2000, "first life arrived")
    seq = max(report.seq for _, report in collector.reports)
    shipping_pod.link.send(500, first=2000)
    time.sleep(1)
    shipping_pod.kill()
    shipping_pod.start()
    wait_for(lambda: shipping_pod.events().count("interface opened") == 2, "second life")
    shipping_pod.link.send(500, first=5000)
    wait_for(lambda: arrived(collector)[-1:] == [5499], "second life arrived")
    assert shipping_pod.terminate() == 0
    found = arrived(collector)
    assert found == [*range(2500), *range(5000, 5500)]
    last = collector.report(ID)
    assert last is not None
    assert last.seq > seq
    assert last.packets == 3000
    assert last.shipped


def test_numbers_that_the_collector_has_already_are_not_used_again(
    shipping_pod: Pod, collector: Collector
) -> None:
    """A node lost the spool and its ledger; the pod and what it sent before are still there."""
    for seq in range(5):
        collector.segments[SegmentName(ID, "eth0", seq)] = Stored(bytearray(b"before"), True)
    shipping_pod.order(an_order(limit=Limit(bytes=0, packets=100)))
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(100)
    assert shipping_pod.wait_end() == 0
    files = collector.files(ID)
    assert [files[seq] for seq in range(5)] == [b"before"] * 5
    assert numbers(*[data for seq, data in files.items() if seq >= 5]) == list(range(100))


def test_a_collector_that_knows_more_than_the_disk_keeps_it(
    shipping_pod: Pod, collector: Collector
) -> None:
    """A node crashed: the end of the segment is gone here, but had arrived there."""
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(100)
    wait_for(lambda: len(arrived(collector)) == 100, "arrived")
    shipping_pod.kill()
    [part] = shipping_pod.spool.rglob("*.part")
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    shipping_pod.start()
    wait_for(lambda: collector.segments[SegmentName(ID, "eth0", 0)].complete, "completed")
    assert shipping_pod.terminate() == 0
    assert arrived(collector) == list(range(100))


def test_a_name_that_the_collector_cannot_prove_gets_nothing(
    pod: Pod, server: Server, collector: Collector
) -> None:
    pod.collectors = ((pod.link.peer.address, 20443),)
    pod.environ = {"NIGHTCAP_COLLECTOR_NAME": "g2.collector.nightcap.internal"}
    pod.order(an_order())
    pod.start()
    wait_for(lambda: "collector not reached, trying again" in pod.events(), "refused")
    assert not collector.tokens
    assert pod.process is not None
    pod.process.send_signal(signal.SIGKILL)


def test_counters_do_not_go_back_while_another_filter_takes_over(
    shipping_pod: Pod, collector: Collector
) -> None:
    """What was let in under the old one is written and counted after the new one is open."""
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(50)

    def is_counted() -> bool:
        report = collector.report(ID)
        return report is not None and report.packets == 50

    wait_for(is_counted, "counted")
    shipping_pod.order(an_order(filter="udp"))
    wait_for(lambda: shipping_pod.events().count("interface opened") == 2, "reopened")
    shipping_pod.link.send(50, first=50)
    wait_for(lambda: len(arrived(collector)) == 100, "all arrived")
    assert shipping_pod.terminate() == 0
    reports = sorted((report for _, report in collector.reports), key=lambda each: each.seq)
    for field in ("packets", "bytes", "received"):
        counts = [getattr(report, field) for report in reports]
        assert counts == sorted(counts)
    began = next(n for n, report in enumerate(reports) if report.state is State.CAPTURING)
    assert State.WAITING not in {report.state for report in reports[began:]}
    assert reports[-1].packets == 100


def test_a_failed_capture_is_reported(shipping_pod: Pod, collector: Collector) -> None:
    shipping_pod.order(an_order(filter="udp prt 53"), an_order(id=ID_2, until=1))
    shipping_pod.start()
    wait_for(lambda: collector.report(ID) and is_shipped(collector, ID_2), "both reported")
    failed, past = collector.report(ID), collector.report(ID_2)
    assert failed is not None
    assert past is not None
    assert (failed.state, failed.reason) == (State.FAILED, Reason.BAD_FILTER)
    assert (past.state, past.reason, past.packets) == (State.FINISHED, Reason.TIME, 0)
    assert not collector.segments
    assert shipping_pod.terminate() == 0


def test_a_capture_without_an_end_is_recorded_and_shipped(
    shipping_pod: Pod, collector: Collector
) -> None:
    """As a capture of Calico's group is ordered: no end, a ring, three files."""
    forever = int(FOREVER)
    collector.until = forever
    ring = Rotation(max_bytes=10_000_000, max_seconds=3600, max_files=3)
    shipping_pod.order(an_order(until=forever, rotation=ring, limit=Limit(bytes=0, packets=0)))
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(20)
    wait_for(lambda: len(arrived(collector)) == 20, "shipped")

    def is_capturing() -> bool:
        report = collector.report(ID)
        return report is not None and report.state is State.CAPTURING

    wait_for(is_capturing, "reported")


def test_an_end_that_the_collector_forgot_is_told_again(
    shipping_pod: Pod, collector: Collector
) -> None:
    """It died between the last bytes and their end; nothing of the segment is freed before."""
    collector.durable_lag = 1.0  # nothing is called durable
    shipping_pod.order(an_order())
    shipping_pod.start()
    shipping_pod.wait_open()
    shipping_pod.link.send(50)
    wait_for(lambda: collector.files(ID), "shipped")
    shipping_pod.order(an_order(until=1))
    [name] = collector.segments
    wait_for(lambda: collector.segments[name].complete, "completed")
    with collector.lock:
        collector.segments[name].complete = False
        collector.durable_lag = 0.0
    wait_for(lambda: collector.segments[name].complete, "completed again")
    shipping_pod.wait_end()
