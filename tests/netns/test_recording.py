"""Real packets through the worker, judged by tcpdump, capinfos and scapy."""

import io
import shutil
import subprocess
import time

import pytest

from nightcap.contract.orders import Limit, Rotation
from nightcap.pcap.formats import PcapReader, scan
from tests.netns.pods import ID, ID_2, Pod, an_order, wait_for
from tests.netns.written import ledger, numbers, segments, settle

pytestmark = pytest.mark.netns


def test_a_capture_holds_what_its_filter_matches_as_other_tools_count_it(pod: Pod) -> None:
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    before = time.time()
    pod.link.send(500)
    pod.link.send(100, port=5354)
    settle()
    assert pod.terminate() == 0
    [file] = segments(pod)
    assert numbers(file) == list(range(500))
    with file.open("rb") as opened:
        found = scan(opened)
    assert found.nanoseconds
    assert found.first_ns is not None
    assert before - 0.1 < found.first_ns / 1e9 < time.time()
    listed = subprocess.run(["tcpdump", "-nr", str(file)], check=True, capture_output=True)
    assert len(listed.stdout.splitlines()) == 500
    if shutil.which("capinfos"):
        infos = subprocess.run(["capinfos", "-cM", str(file)], check=True, capture_output=True)
        assert b"Number of packets:   500" in infos.stdout


def test_scapy_reads_the_same_times_and_bytes(pod: Pod) -> None:
    from scapy.utils import RawPcapNgReader, RawPcapReader

    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(20)
    settle()
    assert pod.terminate() == 0
    [file] = segments(pod)
    ours = list(PcapReader(io.BytesIO(file.read_bytes())))
    with RawPcapReader(str(file)) as reader:
        assert not isinstance(reader, RawPcapNgReader)
        theirs = [(meta.sec * 10**9 + meta.usec, meta.wirelen, data) for data, meta in reader]
    assert [tuple(record) for record in ours] == theirs


def test_packets_of_the_last_moment_before_the_end_are_in_the_file(pod: Pod) -> None:
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(50)
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(50))


def test_every_interface_but_lo_is_captured_each_in_files_of_its_own(pod: Pod) -> None:
    address = pod.link.add_interface("net1", 1)
    pod.order(an_order(interfaces=()))
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    with pod.link.peer.socket() as sock, pod.link.pod.socket() as loopback:
        for _ in range(7):
            sock.sendto(bytes(8), (address, 5353))
            loopback.sendto(bytes(8), ("127.0.0.1", 5353))
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(10))
    assert len(numbers(*segments(pod, interface="net1"))) == 7
    assert not (pod.spool / ID / "lo").exists()


def test_lo_is_captured_by_name_each_packet_once(pod: Pod) -> None:
    """The kernel shows what goes over it twice, on its way out and on its way in."""
    pod.order(an_order(interfaces=("lo",)))
    pod.start()
    pod.wait_open()
    with pod.link.pod.socket() as loopback:
        for number in range(7):
            loopback.sendto(number.to_bytes(8, "big"), ("127.0.0.1", 5353))
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod, interface="lo")) == list(range(7))


def test_an_interface_that_appears_later_is_captured_too(pod: Pod) -> None:
    pod.order(an_order(interfaces=()))
    pod.start()
    pod.wait_open()
    address = pod.link.add_interface("net2", 2)
    wait_for(lambda: pod.events().count("interface opened") == 2, "second interface")
    with pod.link.peer.socket() as sock:
        for _ in range(5):
            sock.sendto(bytes(8), (address, 5353))
    settle()
    pod.link.pod.ip("link", "delete", "net2")
    wait_for(lambda: "interface not captured" in pod.events(), "loss noticed")
    pod.link.send(4)
    settle()
    assert pod.terminate() == 0
    assert len(numbers(*segments(pod, interface="net2"))) == 5
    assert numbers(*segments(pod)) == list(range(4))


def test_the_any_device_has_a_cooked_link_type(pod: Pod) -> None:
    pod.order(an_order(interfaces=("any",)))
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    with pod.link.pod.socket() as loopback:
        loopback.sendto(bytes(8), ("127.0.0.1", 5353))
    settle()
    assert pod.terminate() == 0
    [file] = segments(pod, interface="any")
    with file.open("rb") as opened:
        found = scan(opened)
    assert found.linktype == 276
    assert found.packets >= 11


def test_two_captures_have_each_its_own_filter_and_end(pod: Pod) -> None:
    first, second = an_order(), an_order(id=ID_2, filter="udp dst port 5354", snap=60)
    pod.order(first, second)
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    pod.link.send(20, port=5354)
    settle()
    opened = pod.events().count("interface opened")
    pod.order(an_order(until=first.until), an_order(id=ID_2, filter="udp dst port 5354", until=1))
    wait_for(lambda: "capture finished" in pod.events(), "second capture finished")
    pod.link.send(5, first=10)
    pod.link.send(5, port=5354)
    settle()
    assert pod.events().count("interface opened") == opened == 2
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(15))
    [file] = segments(pod, ID_2)
    records = list(PcapReader(io.BytesIO(file.read_bytes())))
    assert len(records) == 20
    assert {len(record.data) for record in records} == {60}


def test_a_changed_filter_begins_a_new_segment_under_the_new_filter(pod: Pod) -> None:
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(5)
    settle()
    pod.order(an_order(filter="udp dst port 5354"))
    wait_for(lambda: pod.events().count("interface opened") == 2, "reopened")
    pod.link.send(5, first=5)
    pod.link.send(5, port=5354, first=100)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == [*range(5), *range(100, 105)]


def test_a_capture_ends_by_itself_when_its_time_has_come(pod: Pod) -> None:
    pod.order(an_order(until=int(time.time()) + 2))
    pod.start()
    pod.wait_open()
    pod.link.send(5)
    wait_for(lambda: "capture finished" in pod.events(), "end")
    pod.link.send(5, first=5)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(5))
    end = ledger(pod)["end"]
    assert isinstance(end, dict)
    assert end["reason"] == "time"


def test_the_packet_limit_is_exact_and_the_size_limit_nearly(pod: Pod) -> None:
    pod.order(
        an_order(limit=Limit(bytes=0, packets=123)),
        an_order(id=ID_2, limit=Limit(bytes=20_000)),
    )
    pod.start()
    pod.wait_open()
    pod.link.send(1000)
    wait_for(lambda: pod.events().count("capture finished") == 2, "both ends")
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(123))
    held = sum(file.stat().st_size for file in segments(pod, ID_2))
    assert 20_000 <= held < 30_000
    facts = [ledger(pod, id_)["end"] for id_ in (ID, ID_2)]
    assert [isinstance(end, dict) and end["reason"] for end in facts] == ["packets", "size"]


def test_what_is_in_the_orders_no_more_is_removed_and_the_worker_ends(pod: Pod) -> None:
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    settle()
    pod.order_text("")
    assert pod.wait_end() == 0
    assert not (pod.spool / ID).exists()


def test_a_killed_worker_leaves_only_whole_records_and_counts_on(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_bytes=50_000, max_files=100)))
    pod.start()
    pod.wait_open()
    pod.link.send(3000)
    time.sleep(0.8)
    pod.link.send(3000, first=3000)
    pod.kill()
    pod.start()
    wait_for(lambda: pod.events().count("interface opened") == 2, "second life")
    pod.link.send(100, first=10_000)
    settle()
    assert pod.terminate() == 0
    files = segments(pod)
    found = numbers(*files)
    assert found == sorted(set(found))
    assert found[:3000] == list(range(3000))
    assert found[-100:] == list(range(10_000, 10_100))
    assert ledger(pod)["packets"] == len(found)
    assert ledger(pod)["bytes"] == sum(file.stat().st_size for file in files)
    assert not list((pod.spool / ID).rglob("*.part"))
