"""Real packets through the worker, judged by tcpdump, capinfos and scapy."""

import io
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nightcap.contract.orders import Limit, Rotation
from nightcap.pcap.formats import PcapReader, scan
from tests.netns.pods import ID, ID_2, Pod, an_order, wait_for

pytestmark = pytest.mark.netns


def numbers(*files: Path | bytes) -> list[int]:
    """The numbers in the packets that `Link.send` sent."""
    found = []
    for file in files:
        data = file if isinstance(file, bytes) else file.read_bytes()
        reader = PcapReader(io.BytesIO(data))
        found += [int.from_bytes(record.data[42:50], "big") for record in reader]
        assert reader.damage == ""
    return found


def segments(pod: Pod, capture: str = ID, interface: str = "eth0") -> list[Path]:
    return sorted((pod.spool / capture / interface).glob("*.pcap"))


def ledger(pod: Pod, capture: str = ID) -> dict[str, object]:
    value: dict[str, object] = json.loads((pod.spool / capture / "state.json").read_text())
    return value


def settle() -> None:
    """Longer than the kernel holds a packet back and the worker buffers it."""
    time.sleep(0.3)


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


def test_rotation_by_size_loses_and_doubles_nothing(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_bytes=20_000, max_files=1000)))
    pod.start()
    pod.wait_open()
    pod.link.send(5000)
    settle()
    assert pod.terminate() == 0
    files = segments(pod)
    assert len(files) > 10
    assert [file.name for file in files] == [f"{seq:08d}.pcap" for seq in range(len(files))]
    assert numbers(*files) == list(range(5000))
    assert all(file.stat().st_size < 25_000 for file in files)


def test_rotation_by_age_leaves_no_empty_segments(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_seconds=0.3)))
    pod.start()
    pod.wait_open()
    pod.link.send(3)
    time.sleep(1.2)
    pod.link.send(3, first=3)
    settle()
    assert pod.terminate() == 0
    assert [numbers(file) for file in segments(pod)] == [[0, 1, 2], [3, 4, 5]]


def test_the_oldest_segment_goes_and_is_counted_as_lost(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_bytes=10_000, max_files=3)))
    pod.start()
    pod.wait_open()
    pod.link.send(1000)
    settle()
    assert pod.terminate() == 0
    files = segments(pod)
    kept = numbers(*files)
    assert len(files) == 3
    assert kept == list(range(1000))[-len(kept) :]
    lost = ledger(pod)["lost"]
    assert isinstance(lost, dict)
    assert lost["segments"] == int(files[0].stem)
    assert ledger(pod)["packets"] == 1000


def test_the_spool_stays_below_its_cap(pod: Pod) -> None:
    pod.environ = {"NIGHTCAP_SPOOL_BYTES": "100000"}
    pod.order(an_order(rotation=Rotation(max_bytes=10**7, max_files=10**6)))
    pod.start()
    pod.wait_open()
    pod.link.send(3000, size=200)
    settle()
    held = sum(file.stat().st_size for file in (pod.spool / ID).rglob("*.pcap*"))
    assert held <= 150_000
    assert pod.terminate() == 0
    kept = numbers(*segments(pod))
    assert kept
    assert kept == list(range(3000))[-len(kept) :]


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


def test_bad_filters_missing_interfaces_and_bad_orders_are_states_not_ends(pod: Pod) -> None:
    pod.order(
        an_order(filter="udp port port"),
        an_order(id=ID_2, interfaces=("net9",)),
        an_order(id="0a", filter="host example.org"),
        an_order(id="0b", filter="udp) or (tcp"),
    )
    pod.start()
    pod.wait_open()
    facts = {line["capture"]: line for line in pod.log() if line["event"] == "capture state"}
    assert {id_: line["reason"] for id_, line in facts.items()} == {
        ID: "bad-filter",
        ID_2: "no-interface",
        "0a": "bad-filter",
        "0b": "bad-filter",
    }
    assert "syntax error" in facts[ID]["message"]
    assert pod.process is not None
    pod.order_text("{")
    wait_for(lambda: "orders cannot be read" in pod.events(), "bad orders said")
    assert pod.process.poll() is None
    pod.order(an_order())
    wait_for(lambda: "interface opened" in pod.events(), "mended filter opens")
    assert pod.terminate() == 0


def test_a_long_filter_is_open_when_the_marker_says_so_and_holds_up_nobody(pod: Pod) -> None:
    """The slowest known to compile; it is compiled in a helper process first."""
    slow = " or ".join(["portrange 5300-5360"] * 44)
    pod.order(an_order(id=ID_2, filter=slow), an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(5)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == numbers(*segments(pod, ID_2)) == list(range(5))
    opened = [line["capture"] for line in pod.log() if line["event"] == "interface opened"]
    assert opened == [ID, ID_2]


def test_a_named_interface_that_comes_later_is_captured(pod: Pod) -> None:
    pod.order(an_order(interfaces=("net3",)))
    pod.start()
    pod.wait_open()
    assert "interface not captured" in pod.events()
    pod.link.add_interface("net3", 3)
    wait_for(lambda: "interface opened" in pod.events(), "opened when it came")
    assert pod.terminate() == 0


def test_without_the_right_to_capture_it_says_so_and_stays(pod: Pod) -> None:
    pod.order(an_order())
    pod.start(capabilities="-net_raw")
    pod.wait_open()
    [line] = [line for line in pod.log() if line["event"] == "capture state"]
    assert (line["state"], line["reason"]) == ("failed", "no-privilege")
    assert "CAP_NET_RAW missing" in line["message"]
    assert pod.terminate() == 0


def test_a_full_disk_drops_the_oldest_and_goes_on(pod: Pod, tmp_path: Path) -> None:
    pod.spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(pod.spool)], check=True)
    try:
        pod.order(an_order(rotation=Rotation(max_bytes=60_000, max_files=1000)))
        pod.start()
        pod.wait_open()
        for first in range(0, 6000, 500):
            pod.link.send(500, size=150, first=first)
            time.sleep(0.1)
        time.sleep(1)
        pod.link.send(100, first=10_000)
        settle()
        assert pod.terminate() == 0
        found = numbers(*segments(pod))
        assert found == sorted(set(found))
        assert found[-100:] == list(range(10_000, 10_100))
        assert "segment dropped unshipped" in pod.events()
    finally:
        pod.close()
        subprocess.run(["umount", str(pod.spool)], check=True)


def test_a_spool_that_takes_nothing_is_a_state_that_ends_without_loss(pod: Pod) -> None:
    """What comes meanwhile waits in the ring."""
    pod.spool.mkdir()
    (pod.spool / ID).write_text("in the way")
    pod.order(an_order())
    pod.start()
    wait_for(lambda: "interface opened" in pod.events(), "opened all the same")
    pod.link.send(5)
    wait_for(lambda: '"reason": "spool-full"' in (pod.folder / "log").read_text(), "said")
    (pod.spool / ID).unlink()
    pod.link.send(5, first=5)
    wait_for(lambda: '"state": "capturing"' in (pod.folder / "log").read_text(), "goes on")
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(10))
    assert pod.events().count("interface opened") == 1


def test_what_passes_while_nothing_can_be_written_is_counted(pod: Pod) -> None:
    pod.spool.mkdir()
    (pod.spool / ID).write_text("in the way")
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(1)
    wait_for(lambda: '"reason": "spool-full"' in (pod.folder / "log").read_text(), "said")
    # More than the ring holds.
    sent = 4001
    pod.link.send(sent - 1, size=1400, first=1)
    (pod.spool / ID).unlink()
    wait_for(lambda: '"state": "capturing"' in (pod.folder / "log").read_text(), "goes on")
    settle()
    assert pod.terminate() == 0
    kept = numbers(*segments(pod))
    assert kept == list(range(len(kept)))
    counted = ledger(pod)
    assert 0 < len(kept) < sent
    assert (counted["packets"], counted["received"]) == (len(kept), sent)
    assert counted["dropped"] == sent - len(kept)


def test_what_the_kernel_dropped_to_the_last_is_in_the_ledger_when_nobody_else_hears_of_it(
    pod: Pod,
) -> None:
    """The drops come after the last look at the counters, and right before the end."""
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    settle()
    assert pod.process is not None
    pod.process.send_signal(signal.SIGSTOP)
    # More than the ring holds.
    sent = 6000
    pod.link.send(sent - 10, size=1400, first=10)
    pod.process.send_signal(signal.SIGTERM)
    pod.process.send_signal(signal.SIGCONT)
    assert pod.wait_end() == 0
    counted, kept = ledger(pod), numbers(*segments(pod))
    assert 10 < len(kept) < sent
    assert (counted["packets"], counted["received"]) == (len(kept), sent)
    assert counted["dropped"] == sent - len(kept)


def test_a_link_that_goes_down_and_up_is_captured_on(pod: Pod) -> None:
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.pod.ip("link", "set", "eth0", "down")
    time.sleep(0.3)
    pod.link.pod.ip("link", "set", "eth0", "up")
    time.sleep(1)  # the kernel's own link watch takes its time
    pod.link.send(5)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(5))
