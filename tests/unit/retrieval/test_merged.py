"""`merged.pcapng` and `live.pcapng` over a real store; the API server is a small one."""

import io
import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from nightcap.contract.reports import parse_report
from nightcap.contract.segments import StreamKey
from nightcap.pcap.formats import Header, Record, pack_header, pack_record
from nightcap.pcap.pcapng import Interface, Names, Packet, PcapngReader, Section, Statistics, Value
from retrieval.access import CaptureRef, Verb, question
from retrieval.audit import Auditor
from retrieval.files import streams
from retrieval.files.app import create_app
from retrieval.files.catalog import CaptureFile
from retrieval.files.merged import HOLD_SECONDS, Cast, Live, Outside, Title, wanted_files
from retrieval.files.packets import Filters
from retrieval.files.people import People
from retrieval.files.wanted import Wanted
from retrieval.store.base import Store, StreamMeta
from retrieval.stored_reports import StoredReport, dump_stored
from tests.unit.retrieval.builders import CAPTURE, STREAM, a_capture, a_key, a_report
from tests.unit.retrieval.fake_api import FakeApi

BASE = "/v1/namespaces/storefront/packetcaptures/dns"
OTHER = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000002")
START = 1_700_000_000 * 10**9
ETHERNET = Header(1, 262144, nanoseconds=True)
RAW = Header(101, 65535, nanoseconds=False)
COOKED = Header(147, 65535, nanoseconds=True)  # a number for private use: no filter knows it


class Merged:
    """The application over a store with two pods."""

    def __init__(self, store: Store, api: FakeApi) -> None:
        self.store, self.api = store, api
        self.audit: list[dict[str, Any]] = []
        self.is_ready = True
        auditor = Auditor(lambda line: self.audit.append(json.loads(line)))
        self.client = Client(create_app(store, People(api.client), auditor, lambda: self.is_ready))

    def ask(self, path: str, who: str = "reader", method: str = "GET") -> TestResponse:
        headers = {"Authorization": f"Bearer {who}"}
        return self.client.open(f"{BASE}/{path}", method=method, headers=headers)

    def values(self, query: str = "") -> list[Value]:
        answer = self.ask(f"merged.pcapng{query}")
        assert answer.status_code == 200, answer.text
        return values_of(answer.data)

    def put(
        self,
        *at_ns: int,
        stream: StreamKey = STREAM,
        seq: int = 1,
        header: Header = ETHERNET,
        interface: str = "eth0",
        complete: bool = True,
        data: bytes = b"data",
    ) -> None:
        key = a_key(seq, interface, stream)
        size = self.store.segment(key).size
        records = [Record(START + ns, 99, data) for ns in at_ns]
        body = b"" if size else pack_header(header)
        body += b"".join(pack_record(header, record) for record in records)
        if not size:
            self.store.set_link(key, header.linktype)
        self.store.append(key, size, body, complete=complete)
        self.store.wait_durable(key, size + len(body), 5)


def values_of(data: bytes) -> list[Value]:
    reader = PcapngReader(io.BytesIO(data))
    found = list(reader)
    assert reader.damage == ""
    return found


def packets(values: list[Value]) -> list[tuple[str, int]]:
    """(name of the interface, nanoseconds after the start) of each packet."""
    interfaces = [value for value in values if isinstance(value, Interface)]
    return [
        (interfaces[value.interface].name, (value.time_ns or 0) - START)
        for value in values
        if isinstance(value, Packet)
    ]


def only(values: list[Value], kind: type) -> list[Any]:
    return [value for value in values if isinstance(value, kind)]


@pytest.fixture
def merged(store: Store, api: FakeApi) -> Merged:
    api.users["reader", "api"] = {"username": "reader", "groups": ["system:authenticated"]}
    api.users["capturer", "api"] = {"username": "capturer", "groups": ["system:authenticated"]}
    api.allowed.add(
        ("reader", "get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
    )
    api.captures = [a_capture()]
    for stream, pod, ips in ((STREAM, "web-0", ("10.0.0.1", "fd00::1")), (OTHER, "web-1", ())):
        store.create_stream(stream, StreamMeta(pod=pod, node="node-a", capture="dns", ips=ips))
    return Merged(store, api)


# merged.pcapng


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


# live.pcapng


class World:
    """A live answer in a time of its own: things happen while it sleeps."""

    def __init__(
        self,
        merged: Merged,
        happenings: dict[float, Callable[[], object]],
        wanted: Wanted | None = None,
    ) -> None:
        self.now = 0.0
        self.may_read, self.over, self.left = True, False, False
        self.data = b""
        self.shown: list[tuple[float, str, int]] = []
        self._happenings = sorted(happenings.items())
        wanted = wanted or Wanted()
        self._stack = ExitStack()
        self._live = Live(
            store=merged.store,
            namespace="storefront",
            capture_uid=CAPTURE,
            wanted=wanted,
            filters=Filters(wanted.filter, lambda *_: None),
            title=Title("storefront", "dns"),
            cast=Cast(),
            outside=Outside(
                is_allowed=lambda: self.may_read,
                is_over=lambda: self.over,
                has_left=lambda: self.left,
                clock=lambda: self.now,
                sleep=self._sleep,
            ),
            stack=self._stack,
        )

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._happenings and self._happenings[0][0] <= self.now:
            self._happenings.pop(0)[1]()

    def watch(self, seconds: float = 60) -> list[tuple[float, str, int]]:
        """(when it was shown, interface, nanoseconds after the start) of each packet."""
        for piece in self._live.pieces():
            self.data += piece
            found = packets(values_of(self.data))
            self.shown += [(self.now, *packet) for packet in found[len(self.shown) :]]
            if self.now >= seconds:
                break
        self._stack.close()
        return self.shown


def leave(world: World) -> None:
    world.left = True


def test_live_shows_what_is_there_then_what_comes_soon_after_it_came(merged: Merged) -> None:
    merged.put(10, complete=False)
    merged.put(5, stream=OTHER, complete=False)
    world = World(
        merged,
        {
            3.0: lambda: merged.put(3 * 10**9, complete=True),
            4.0: lambda: merged.put(4 * 10**9, seq=2, complete=False),
            5.0: lambda: merged.put(5 * 10**9, interface="net1"),
            8.0: lambda: leave(world),
        },
    )
    shown = world.watch()
    assert [packet for _, *packet in shown] == [
        ["web-1:eth0", 5],
        ["web-0:eth0", 10],
        ["web-0:eth0", 3 * 10**9],
        ["web-0:eth0", 4 * 10**9],
        ["web-0:net1", 5 * 10**9],
    ]
    assert [at for at, *_ in shown[:2]] == [0, 0]
    for came, (at, *_) in zip((3, 4, 5), shown[2:], strict=True):
        assert came <= at <= came + HOLD_SECONDS + 0.5


def test_a_pod_that_is_alone_waits_for_nobody(merged: Merged) -> None:
    merged.put(10, complete=False)
    world = World(
        merged,
        {3.0: lambda: merged.put(20, complete=False), 5.0: lambda: leave(world)},
        Wanted(pods=frozenset({"web-0"})),
    )
    assert world.watch()[1][0] <= 3.2


def test_a_late_pod_is_shown_in_order_within_the_hold_and_else_late(merged: Merged) -> None:
    merged.put(1, complete=False)
    merged.put(2, stream=OTHER, complete=False)
    world = World(
        merged,
        {
            3.0: lambda: merged.put(30, complete=False),
            3.2: lambda: merged.put(25, stream=OTHER, complete=False),
            6.0: lambda: merged.put(60, complete=False),
            9.0: lambda: merged.put(55, stream=OTHER, complete=False),
            12.0: lambda: leave(world),
        },
    )
    assert [at for *_, at in world.watch()] == [1, 2, 25, 30, 60, 55]


def test_a_pod_that_is_born_meanwhile_joins_with_its_name(merged: Merged) -> None:
    born = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000003")

    def bear() -> None:
        meta = StreamMeta(pod="web-2", node="b", capture="dns", ips=("10.0.0.3",))
        merged.store.create_stream(born, meta)
        merged.put(20, stream=born, complete=False)

    merged.put(10, complete=False)
    world = World(merged, {3.0: bear, 6.0: lambda: leave(world)})
    assert [packet for _, *packet in world.watch()] == [["web-0:eth0", 10], ["web-2:eth0", 20]]
    assert only(values_of(world.data), Names)[-1].records == (("10.0.0.3", ("web-2",)),)


def test_a_record_that_is_half_there_is_shown_when_it_is_whole(merged: Merged) -> None:
    merged.put(10, complete=False)
    record = pack_record(ETHERNET, Record(START + 20, 99, b"data"))
    size = merged.store.segment(a_key()).size

    def append(begin: int, end: int) -> None:
        merged.store.append(a_key(), size + begin, record[begin:end], complete=False)

    world = World(
        merged,
        {
            2.0: lambda: append(0, 7),
            3.0: lambda: append(7, 18),
            4.0: lambda: append(18, 20),
            5.0: lambda: leave(world),
        },
    )
    shown = world.watch()
    assert [at for *_, at in shown] == [10, 20]
    assert shown[1][0] >= 4


def test_a_file_that_is_deleted_while_it_is_open_is_read_to_its_end(merged: Merged) -> None:
    merged.put(10, complete=False)

    def replace() -> None:
        merged.put(20, complete=False)
        merged.store.delete_segment(a_key())
        merged.put(30, seq=2, complete=False)

    world = World(merged, {3.0: replace, 5.0: lambda: leave(world)})
    assert [at for *_, at in world.watch()] == [10, 20, 30]


def shipped(merged: Merged, dropped: int = 0, is_last: bool = True) -> None:
    seq = 2 if is_last else 1
    report = parse_report(a_report(seq, received=9, dropped=dropped, shipped=is_last))
    merged.store.write_report(STREAM, dump_stored(StoredReport(report, 2.0)), seq)


def finish(world: World) -> None:
    world.over = True


def test_live_ends_with_the_capture_when_all_is_shipped(merged: Merged) -> None:
    merged.store.delete_capture("storefront", CAPTURE)
    merged.store.create_stream(STREAM, StreamMeta(pod="web-0", node="a", capture="dns"))
    merged.put(10, complete=False)
    shipped(merged, is_last=False)
    world = World(
        merged,
        {
            3.0: lambda: finish(world),
            5.0: lambda: merged.put(20, complete=True),
            6.0: lambda: shipped(merged, dropped=3),
        },
    )
    assert [at for *_, at in world.watch()] == [10, 20]
    assert 6 <= world.now <= 6 + 2.5
    assert only(values_of(world.data), Statistics)[-1].dropped == 3


def test_live_ends_after_a_while_when_a_pod_does_not_report(merged: Merged) -> None:
    merged.put(10, complete=False)
    world = World(merged, {3.0: lambda: finish(world)})
    world.watch()
    assert 10 <= world.now <= 13


def test_live_ends_when_the_right_is_taken_away(merged: Merged) -> None:
    merged.put(10, complete=False)

    def revoke() -> None:
        world.may_read = False

    world = World(merged, {3.0: revoke, 6.0: lambda: merged.put(20)})
    assert [at for *_, at in world.watch()] == [10]
    assert world.now <= 5.5


def test_drops_are_told_when_they_happen(merged: Merged) -> None:
    merged.put(10, complete=False)
    world = World(
        merged, {3.0: lambda: shipped(merged, 7, is_last=False), 20.0: lambda: leave(world)}
    )
    world.watch()
    assert [s.dropped for s in only(values_of(world.data), Statistics)] == [7]


def test_a_quiet_reader_gets_a_sign_of_life(merged: Merged) -> None:
    """Writing is the only way to find out that the other machine is gone."""
    sizes = []
    world = World(
        merged,
        {
            29.0: lambda: sizes.append(len(world.data)),
            33.0: lambda: sizes.append(len(world.data)),
            34.0: lambda: leave(world),
        },
    )
    assert world.watch() == []
    assert sizes[1] > sizes[0] > 0


def test_live_readers_are_bounded_and_a_seat_is_free_again(
    merged: Merged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.LiveSeats.__init__, "__defaults__", (1,))
    merged = Merged(merged.store, merged.api)
    merged.put(10, complete=False)
    merged.is_ready = False  # the program ends: live answers do, too
    answer = merged.client.open(
        f"{BASE}/live.pcapng", headers={"Authorization": "Bearer reader"}, buffered=False
    )
    refused = merged.ask("live.pcapng")
    assert refused.status_code == 503
    assert refused.text.startswith("1 people read live already")
    assert refused.headers["Retry-After"] == "10"
    answer.close()
    assert merged.ask("live.pcapng").status_code == 200


def test_a_standing_yes_holds_until_the_api_server_says_no(merged: Merged) -> None:
    people = People(merged.api.client, clock=lambda: 0)
    ref = CaptureRef("storefront", "dns")
    capture = people.find(ref)
    assert capture is not None

    def standing(user: str = "reader") -> streams.StandingYes:
        judge = People(merged.api.client)
        return streams.StandingYes(judge, user, question(ref, Verb.GET), ref, capture)

    assert standing().holds()
    assert not standing().is_over()
    merged.api.is_down = True
    assert standing().holds()
    merged.api.is_down = False
    assert not standing("capturer").holds()
    assert not standing("stranger").holds()
    merged.api.captures = [a_capture(phase="Finished")]
    ended = standing()
    assert ended.holds()
    assert ended.is_over()
    merged.api.captures = [a_capture(uid="ca9a0000-0000-4000-8000-000000000009")]
    assert not standing().holds()
    merged.api.captures = []
    assert not standing().holds()
