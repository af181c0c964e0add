"""`merged.pcapng` over a real store; the API server is a small one."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.reports import parse_report
from nightcap.pcap.pcapng import Interface, Names, Packet, Section, Statistics
from retrieval.files.catalog import CaptureFile
from retrieval.files.merged import wanted_files
from retrieval.files.wanted import Wanted
from retrieval.store.base import StreamMeta
from retrieval.stored_reports import StoredReport, dump_stored
from tests.unit.retrieval.builders import STREAM, a_capture, a_key, a_report
from tests.unit.retrieval.merging import (
    BASE,
    COOKED,
    OTHER,
    RAW,
    START,
    Merged,
    only,
    packets,
    values_of,
)


def test_all_pods_are_one_file_in_order_of_time(merged: Merged) -> None:
    merged.put(10, 50, seq=1)
    merged.put(60, 90, seq=2)
    merged.put(20, 55, 70, stream=OTHER, complete=False)
    values = merged.values()
    assert packets(values) == [
        ("web-0:eth0", 10),
        ("web-1:eth0", 20),
        ("web-0:eth0", 50),
        ("web-1:eth0", 55),
        ("web-0:eth0", 60),
        ("web-1:eth0", 70),
        ("web-0:eth0", 90),
    ]
    (section,) = only(values, Section)
    assert section.comments == ("packet capture dns of namespace storefront",)
    first = only(values, Interface)[0]
    assert first.description == "eth0 of pod web-0 on node node-a"
    assert first.ticks_per_second == 10**9


def test_link_types_of_one_interface_are_kept_apart(merged: Merged) -> None:
    merged.put(10, seq=1)
    merged.put(20_000, seq=2, header=RAW)
    merged.put(30, interface="net1")
    values = merged.values()
    assert [(i.name, i.linktype) for i in only(values, Interface)] == [
        ("web-0:eth0", 1),
        ("web-0:net1", 1),
        ("web-0:eth0", 101),
    ]
    assert [packet.time_ns - START for packet in only(values, Packet)] == [10, 30, 20_000]


def test_addresses_of_pods_and_services_have_names(merged: Merged) -> None:
    merged.api.services = [
        {
            "metadata": {"name": "checkout", "namespace": "storefront"},
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]},
        },
        {
            "metadata": {"name": "headless", "namespace": "storefront"},
            "spec": {"clusterIP": "None"},
        },
    ]
    merged.put(10)
    (names,) = only(merged.values(), Names)
    assert names.records == (
        ("10.96.0.7", ("checkout.storefront.svc",)),
        ("10.0.0.1", ("web-0",)),
        ("fd00::1", ("web-0",)),
    )


def test_drops_are_told_once_for_a_pod(merged: Merged) -> None:
    merged.put(10)
    merged.put(20, interface="net1")
    merged.put(30, stream=OTHER)
    report = parse_report(a_report(received=9, dropped=4))
    merged.store.write_report(STREAM, dump_stored(StoredReport(report, 2.0)), 1)
    told = only(merged.values(), Statistics)
    assert [(s.interface, s.received, s.dropped) for s in told] == [(0, 9, 4), (1, None, None)]
    assert told[0].comments == ("counters are of all interfaces of this pod together",)
    assert told[0].time_ns == 1_500_000_000


def test_damage_is_stated_and_all_before_it_is_there(merged: Merged) -> None:
    merged.put(10, 20, complete=False)
    size = merged.store.segment(a_key()).size
    merged.store.append(a_key(), size, b"\xff" * 40, complete=True)
    merged.put(30, seq=2)
    values = merged.values()
    assert [at for _, at in packets(values)] == [10, 20, 30]
    (told,) = only(values, Statistics)
    assert told.comments == ("file 1 of eth0: no record at byte 64",)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?pod=web-1", [20, 3_000_000_020]),
        ("?pod=web-0,web-1&to=1700000002", [10, 20, 1_000_000_010]),
        ("?from=1700000001&to=1700000003.00000001", [1_000_000_010, 2_000_000_010]),
        ("?from=2023-11-14T22:13:23Z", [3_000_000_010, 3_000_000_020]),
    ],
)
def test_pods_and_times_are_cut_out(merged: Merged, query: str, expected: list[int]) -> None:
    for seq in range(4):
        merged.put(seq * 10**9 + 10, seq=seq)
    merged.put(20, 3 * 10**9 + 20, stream=OTHER)
    assert [at for _, at in packets(merged.values(query))] == expected


def test_packets_are_filtered_by_libpcap(merged: Merged) -> None:
    merged.put(10, data=bytes(60))
    merged.put(20, seq=2, data=bytes(12) + b"\x86\xdd" + bytes(60))
    values = merged.values("?filter=ip6")
    assert packets(values) == [("web-0:eth0", 20)]
    (section,) = only(values, Section)
    assert section.comments[0].endswith("filtered by ip6")


def test_packets_that_a_filter_does_not_fit_are_left_out_and_that_is_said(
    merged: Merged,
) -> None:
    merged.put(10, data=bytes(60))
    merged.put(20, interface="tun0", header=COOKED)
    values = merged.values("?filter=not vlan 5")
    assert packets(values) == [("web-0:eth0", 10)]
    (told,) = only(values, Statistics)
    assert "left out, as the filter does not fit" in told.comments[0]
    assert "VLAN" in told.comments[0]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("filter=udp port 99999", "illegal port number 99999 > 65535"),
        ("filter=tcp and and", "syntax error"),
        ("filter=host example.com", "are not looked up"),
        ("since=1", "is no parameter"),
        ("from=now", "must be RFC 3339"),
    ],
)
@pytest.mark.parametrize("route", ["merged.pcapng", "live.pcapng"])
def test_what_is_asked_wrongly_is_refused_in_words(
    merged: Merged, route: str, query: str, sentence: str
) -> None:
    merged.put(10)
    answer = merged.ask(f"{route}?{query}")
    assert answer.status_code == 400
    assert sentence in answer.text
    assert merged.audit == []


@pytest.mark.parametrize("route", ["merged.pcapng", "live.pcapng"])
def test_a_machine_that_cannot_compile_a_filter_asks_for_patience(
    merged: Merged, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """It was 400, as if the filter were at fault."""
    merged.put(10)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    answer = merged.ask(f"{route}?filter=udp")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert "could not be checked" in answer.text


def test_nothing_is_no_content(merged: Merged) -> None:
    assert merged.ask("merged.pcapng").status_code == 204
    merged.put(10)
    for query in ("?pod=other", "?filter=ip6", "?from=1800000000", "?to=1000000000"):
        assert merged.ask(f"merged.pcapng{query}").status_code == 204
    assert merged.audit == []


def test_head_says_what_get_would(merged: Merged) -> None:
    assert merged.ask("merged.pcapng", method="HEAD").status_code == 204
    merged.put(10)
    for route in ("merged.pcapng", "live.pcapng"):
        answer = merged.ask(route, method="HEAD")
        assert (answer.status_code, answer.content_type) == (200, "application/x-pcapng")


@pytest.mark.parametrize("route", ["merged.pcapng", "live.pcapng"])
@pytest.mark.parametrize("exists", [True, False], ids=["exists", "does not exist"])
def test_without_the_right_nobody_learns_anything(merged: Merged, route: str, exists: bool) -> None:
    merged.put(10)
    merged.api.captures = [a_capture()] if exists else []
    assert merged.ask(route, who="stranger").status_code == 401
    refused = merged.ask(f"{route}?filter=nonsense(", who="capturer")
    assert refused.status_code == 403
    assert refused.text.startswith("capturer is not authorized to get packetcaptures/files")
    if not exists:
        assert merged.ask(route).status_code == 404


def test_what_was_handed_out_is_on_record_with_its_query(merged: Merged) -> None:
    merged.put(10)
    data = merged.ask("merged.pcapng?pod=web-0").data
    (record,) = merged.audit
    assert record["what"] == "merged.pcapng?pod=web-0"
    assert (record["user"], record["bytes"], record["ended"]) == ("reader", len(data), "complete")


def test_a_file_that_goes_meanwhile_is_left_out(merged: Merged) -> None:
    merged.put(10)
    merged.put(*range(1000, 20_000), stream=OTHER)
    merged.put(30_000, seq=2)
    answer = merged.client.open(
        f"{BASE}/merged.pcapng", headers={"Authorization": "Bearer reader"}, buffered=False
    )
    pieces = iter(answer.response)
    data = next(pieces)
    merged.store.delete_segment(a_key(2))
    data += b"".join(pieces)
    answer.close()
    assert [at for _, at in packets(values_of(data))] == [10, *range(1000, 20_000)]


def test_the_longest_packet_is_read_whatever_the_reading_size(merged: Merged) -> None:
    merged.put(10, 20, data=bytes(262144))
    found = only(merged.values(), Packet)
    assert [len(packet.data) for packet in found] == [262144, 262144]


def test_tshark_shows_names_of_interfaces_and_hosts(merged: Merged, tmp_path: Any) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    packet = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=9))
    merged.put(123_456_789, data=packet)
    path = tmp_path / "merged.pcapng"
    path.write_bytes(merged.ask("merged.pcapng").data)
    fields = ("frame.interface_name", "frame.time_epoch", "ip.src_host")
    done = subprocess.run(
        ["tshark", "-N", "n", "-r", str(path), "-T", "fields"]
        + [part for field in fields for part in ("-e", field)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.split() == ["web-0:eth0", "1700000000.123456789", "web-0"]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_files_that_cannot_hold_a_wanted_packet_are_not_read(
    starts: list[int], begin: int, end: int
) -> None:
    """A file may hold packets up to the start of the next one, and a second beyond."""
    starts = sorted(starts)
    meta = StreamMeta(pod="web-0", node="node-a", capture="dns")
    files = [
        CaptureFile("", a_key(seq), meta, 99, True, second * 10**9, None, None)
        for seq, second in enumerate(starts)
    ]
    wanted = Wanted(from_ns=begin * 10**9, to_ns=(end + 1) * 10**9)
    kept = {file.key.seq for file in wanted_files(files, wanted)}
    for file, last in zip(files, [*starts[1:], 99], strict=True):
        first = file.first_ns // 10**9
        if first <= end and last >= begin:
            assert file.key.seq in kept
        if last + 1 < begin or first - 1 > end:
            assert file.key.seq not in kept
