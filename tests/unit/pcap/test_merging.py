import io
import random
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nightcap.pcap import pcapng
from nightcap.pcap.formats import Header, PcapReader, Record, pack_header, pack_record
from nightcap.pcap.merging import MEMORY_BYTES, Merger, batch_bytes, merge
from nightcap.pcap.pcapng import Interface, Packet, Section
from nightcap.pcap.pcapng_reading import PcapngReader
from nightcap.pcap.rewriting import Batch, rewrite

NANO = Header(1, 262144, nanoseconds=True)
END = float("inf")
START = 1_700_000_000 * 10**9


class Growing:
    """A stream whose packets come when the test says so, some at a time."""

    def __init__(self, interface: int, most: int = 3) -> None:
        self.interface = interface
        self.waiting: list[int] = []
        self.most = most

    @property
    def more(self) -> bool:
        return bool(self.waiting)

    def read(self) -> Batch | None:
        times, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
        data = b"".join(pack_record(NANO, Record(START + t, 4, b"data")) for t in times)
        return rewrite(data, NANO, self.interface) if times else None


class InPieces:
    """A file's records, read so many bytes at a time."""

    def __init__(self, data: bytes, header: Header, interface: int, piece: int) -> None:
        self.data, self.header, self.interface, self.piece = data, header, interface, piece
        self.more_is_there = True

    @property
    def more(self) -> bool:
        return self.more_is_there

    def read(self) -> Batch | None:
        batch = rewrite(self.data[: self.piece], self.header, self.interface)
        while not batch.end and self.piece < len(self.data):
            self.piece *= 2
            batch = rewrite(self.data[: self.piece], self.header, self.interface)
        self.data = self.data[batch.end :]
        self.more_is_there = batch.end > 0
        return batch if batch.end else None


def packets(blocks: list[bytes], interfaces: int) -> list[Packet]:
    head = [pcapng.pack_section(Section())]
    head += [pcapng.pack_interface(Interface(1, 262144)) for _ in range(interfaces)]
    reader = PcapngReader(io.BytesIO(b"".join(head + blocks)))
    found = [value for value in reader if isinstance(value, Packet)]
    assert reader.damage == ""
    return found


def order(blocks: list[bytes]) -> list[tuple[int, int]]:
    return [(p.interface, (p.time_ns or 0) - START) for p in packets(blocks, 9)]


def merging(*streams: Growing) -> Merger:
    """A merger of these that holds back for a second."""
    merger = Merger(hold_seconds=1)
    for stream in streams:
        merger.add(stream)
    return merger


def two_that_wait() -> tuple[Growing, Growing, Merger]:
    """Two streams without packets, and their merger, which has looked at them."""
    first, second = Growing(0), Growing(1)
    merger = merging(first, second)
    assert merger.next(100) == []
    return first, second, merger


def whole(merger: Merger, now: float) -> list[tuple[int, int]]:
    """All that it gives at a time, some at each call."""
    return [entry for _ in range(60) for entry in order(merger.next(now))]


def a_file(header: Header, records: list[Record]) -> bytes:
    return b"".join(pack_record(header, record) for record in records)


records = st.lists(
    st.builds(
        Record,
        time_ns=st.integers(0, 40).map(lambda t: START + t * 1000),
        wire_bytes=st.integers(0, 2**32 - 1),
        data=st.binary(max_size=40),
    ),
    max_size=12,
)
headers = st.builds(
    Header,
    linktype=st.just(1),
    snaplen=st.just(262144),
    nanoseconds=st.booleans(),
    byte_order=st.sampled_from("<>"),
)


@given(headers, records, st.integers(0, 400))
def test_records_become_blocks_as_the_writer_of_blocks_makes_them(
    header: Header, found: list[Record], cut: int
) -> None:
    data = a_file(header, found)[:cut]
    batch = rewrite(data, header, 3)
    whole = list(PcapReader(io.BytesIO(pack_header(header) + data)))
    interface = Interface(1, 262144)
    assert batch.blocks == [
        pcapng.pack_packet(Packet(3, r.time_ns, r.wire_bytes, r.data), interface) for r in whole
    ]
    assert batch.times == [record.time_ns for record in whole]
    assert batch.end == len(a_file(header, whole))
    assert batch.damage == ""


@given(headers, records, st.binary(min_size=16, max_size=64))
def test_rewriting_and_reading_find_the_same_damage(
    header: Header, found: list[Record], noise: bytes
) -> None:
    data = a_file(header, found) + noise
    reader = PcapReader(io.BytesIO(pack_header(header) + data))
    whole = list(reader)
    batch = rewrite(data, header, 0)
    assert len(batch.blocks) == len(whole)
    assert batch.end == reader.end - 24
    assert bool(batch.damage) == reader.damage.startswith("no record")


@given(st.lists(st.tuples(headers, records), min_size=1, max_size=5), st.integers(1, 200))
def test_all_packets_are_there_once_in_the_order_of_their_stream_and_of_time(
    files: list[tuple[Header, list[Record]]], piece: int
) -> None:
    sources = [
        InPieces(a_file(header, found), header, number, piece)
        for number, (header, found) in enumerate(files)
    ]
    merged = packets([block for blocks in merge(sources) for block in blocks], len(files))
    for number, (_, found) in enumerate(files):
        mine = [
            Record(p.time_ns or 0, p.wire_bytes, p.data) for p in merged if p.interface == number
        ]
        assert mine == found
    if all(found == sorted(found, key=lambda r: r.time_ns) for _, found in files):
        times = [packet.time_ns or 0 for packet in merged]
        assert times == sorted(times)


def test_mergecap_merges_alike(tmp_path: Path) -> None:
    source = random.Random(7)  # noqa: S311 - the same packets each time
    sources, paths = [], []
    for number in range(4):
        times = sorted(source.sample(range(10**6), 300))
        found = [
            Record(START + t * 4 + number, 60, source.randbytes(source.randint(0, 60)))
            for t in times
        ]
        data = a_file(NANO, found)
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(pack_header(NANO) + data)
        paths.append(str(path))
        sources.append(InPieces(data, NANO, number, 512))
    theirs = tmp_path / "merged.pcapng"
    subprocess.run(
        ["mergecap", "-F", "pcapng", "-I", "none", "-w", str(theirs), *paths],
        check=True,
        capture_output=True,
    )
    expected = [
        value
        for value in PcapngReader(io.BytesIO(theirs.read_bytes()))
        if isinstance(value, Packet)
    ]
    assert packets([b for blocks in merge(sources) for b in blocks], 4) == expected


def test_memory_does_not_grow_with_the_number_of_streams() -> None:
    for streams in (1, 20, 500):
        assert streams * batch_bytes(streams) <= MEMORY_BYTES


def test_a_single_stream_is_never_held_back() -> None:
    only = Growing(0)
    merger = merging(only)
    assert merger.next(100) == []
    only.waiting = [5]
    assert order(merger.next(100)) == [(0, 5)]
    assert merger.is_empty


def test_packets_wait_for_those_of_another_stream_and_come_in_order() -> None:
    first, second, merger = two_that_wait()
    first.waiting = [10, 30]
    assert merger.next(100.1) == []
    second.waiting = [20]
    assert order(merger.next(100.5)) == [(0, 10), (1, 20)]
    assert not merger.is_empty


def test_nothing_is_held_longer_than_the_hold_and_what_is_late_is_given_late() -> None:
    first, second, merger = two_that_wait()
    first.waiting = [10, 30]
    assert merger.next(100.1) == []
    assert merger.next(101) == []
    assert order(merger.next(101.2)) == [(0, 10), (0, 30)]
    second.waiting = [20]
    assert order(merger.next(102)) == [(1, 20)]
    assert merger.is_empty


def test_what_was_there_at_the_beginning_is_old_and_not_held_back() -> None:
    full, empty = Growing(0), Growing(1)
    full.waiting = list(range(100))
    assert whole(merging(full, empty), 100) == [(0, t) for t in range(100)]


def test_a_reader_that_was_away_gets_what_has_come_after_one_hold() -> None:
    first, _, merger = two_that_wait()
    first.waiting = list(range(100))
    assert merger.next(200) == []
    assert whole(merger, 201.1) == [(0, t) for t in range(100)]


def test_a_stream_joins_while_others_are_merged() -> None:
    first = Growing(0)
    merger = merging(first)
    first.waiting = [10]
    assert order(merger.next(100)) == [(0, 10)]
    second = Growing(1)
    second.waiting = [5]
    merger.add(second)
    first.waiting = [20]
    assert order(merger.next(100)) == [(1, 5)]
    assert order(merger.next(101.1)) == [(0, 20)]
