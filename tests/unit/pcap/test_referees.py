"""What others read in our files and we in theirs; and that no file costs memory by its size."""

import io
import struct
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.pcap import pcapng
from nightcap.pcap.formats import Header, PcapReader, Record, pack_header, pack_record
from nightcap.pcap.pcapng import Interface, Packet, Section, Statistics
from nightcap.pcap.pcapng_reading import PcapngReader
from tests.unit.pcap.test_formats import a_file, headers, records

START = 1_700_000_000 * 10**9
MOST_MEMORY = 8 * 2**20
KINDS = [
    pytest.param(Header(1, 262144, nanoseconds, order), id=f"{unit} {order}")
    for nanoseconds, unit in ((True, "nano"), (False, "micro"))
    for order in "<>"
]


def some_records() -> list[Record]:
    return [
        Record(START + number * 1_001_000, 60 + number, bytes([number]) * (14 + number))
        for number in range(200)
    ]


def seen_by_tshark(path: Path) -> list[tuple[int, int, int]]:
    """Time, wire length and kept length of each packet, whatever it says of the file's end."""
    fields = ("frame.time_epoch", "frame.len", "frame.cap_len")
    options = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *options]
    listed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    return [(int(time.replace(".", "")), int(wire), int(kept)) for time, wire, kept in rows]


def told(found: list[Record]) -> list[tuple[int, int, int]]:
    return [(each.time_ns, each.wire_bytes, len(each.data)) for each in found]


def as_pcapng(header: Header, found: list[Record]) -> bytes:
    interface = Interface(1, 262144, ticks_per_second=10**9 if header.nanoseconds else 10**6)
    blocks = [
        pcapng.pack_section(Section(header.byte_order)),
        pcapng.pack_interface(interface, header.byte_order),
    ]
    blocks += [
        pcapng.pack_packet(
            Packet(0, each.time_ns, each.wire_bytes, each.data), interface, header.byte_order
        )
        for each in found
    ]
    return b"".join(blocks)


def in_pcap(data: bytes) -> tuple[list[Record], str]:
    reader = PcapReader(io.BytesIO(data))
    return list(reader), reader.damage


def in_pcapng(data: bytes) -> tuple[list[Record], str]:
    reader = PcapngReader(io.BytesIO(data))
    values = [value for value in reader if isinstance(value, Packet)]
    return [Record(each.time_ns or 0, each.wire_bytes, each.data) for each in values], reader.damage


FORMATS = [pytest.param(a_file, in_pcap, id="pcap"), pytest.param(as_pcapng, in_pcapng, id="ng")]
Write = Callable[[Header, list[Record]], bytes]
Read = Callable[[bytes], tuple[list[Record], str]]


@pytest.mark.parametrize("header", KINDS)
@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_tshark_sees_the_same_times_and_lengths_also_of_a_file_that_was_cut(
    tmp_path: Path, header: Header, write: Write, read: Read
) -> None:
    data = write(header, some_records())
    # In a record's head, in its data, and where it ends.
    for cut in (len(data), len(data) - 1, len(data) // 2, len(write(header, some_records()[:7]))):
        path = tmp_path / f"{cut}.pcap"
        path.write_bytes(data[:cut])
        found, damage = read(data[:cut])
        assert seen_by_tshark(path) == told(found)
        assert found == some_records()[: len(found)]
        assert bool(damage) == (write(header, found) != data[:cut])


@given(headers, st.lists(records, max_size=6))
def test_scapy_reads_every_kind_of_file(header: Header, found: list[Record]) -> None:
    from scapy.utils import RawPcapReader

    unit = 1 if header.nanoseconds else 1000
    reader = RawPcapReader(io.BytesIO(a_file(header, found)))  # type: ignore[arg-type]
    theirs = [Record(m.sec * 10**9 + m.usec * unit, m.wirelen, raw) for raw, m in reader]
    assert theirs == found


@given(st.lists(records, max_size=6), st.booleans(), st.sampled_from("<>"))
def test_what_scapy_writes_is_read(found: list[Record], nanoseconds: bool, order: str) -> None:
    from scapy.utils import RawPcapWriter

    file = io.BytesIO()
    file.close = lambda: None  # type: ignore[method-assign]
    unit = 1 if nanoseconds else 1000
    writer = RawPcapWriter(
        file,  # type: ignore[arg-type]
        linktype=1,
        nano=nanoseconds,
        endianness=order,
        snaplen=262144,
    )
    writer.write_header(None)
    for each in found:
        seconds, rest = divmod(each.time_ns, 10**9)
        writer.write_packet(
            each.data,
            sec=seconds,
            usec=rest // unit,
            caplen=len(each.data),
            wirelen=each.wire_bytes,
        )
    writer.flush()
    read, damage = in_pcap(file.getvalue())
    assert (read, damage) == (found, "")


unknown_options = st.lists(
    st.tuples(st.integers(2000, 2**15 - 1), st.binary(max_size=20)), max_size=4
)


@given(unknown_options, unknown_options, st.sampled_from("<>"), st.booleans())
def test_options_that_nobody_knows_are_passed_over(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], order: str, ended: bool
) -> None:
    """Around a comment, with and without the mark of their end."""
    options = [*before, (1, b"looked at"), *after]
    packed = b"".join(
        struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) & 3)
        for code, value in options
    )
    packed += bytes(4) if ended else b""
    interface = Interface(1, 262144)
    packet = Packet(0, START, 60, b"data", comments=("looked at",))
    statistics = Statistics(0, START, comments=("looked at",))
    body_of_packet = struct.pack(order + "IIIII", 0, START >> 32, START & 0xFFFFFFFF, 4, 60)
    body_of_statistics = struct.pack(order + "III", 0, START >> 32, START & 0xFFFFFFFF)
    data = pcapng.pack_section(Section(order)) + pcapng.pack_interface(interface, order)
    for kind, body in ((6, body_of_packet + b"data"), (5, body_of_statistics)):
        length = struct.pack(order + "I", len(body) + len(packed) + 12)
        data += struct.pack(order + "I", kind) + length + body + packed + length
    reader = PcapngReader(io.BytesIO(data))
    assert list(reader)[2:] == [packet, statistics]
    assert reader.damage == ""


class Long:
    """A file that begins with `start` and repeats `part`; it is made while it is read."""

    def __init__(self, start: bytes, part: bytes, times: int) -> None:
        self._rest = self._pieces(start, part, times)
        self._left = b""

    def _pieces(self, start: bytes, part: bytes, times: int) -> Iterator[bytes]:
        yield start
        for _ in range(times):
            yield part

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (piece := next(self._rest, b"")):
            self._left += piece
        data, self._left = self._left[:size], self._left[size:]
        return data


PACKET = Record(START, 60_000, bytes(60_000))
NANO = Header(1, 262144, nanoseconds=True)
BLOCK = as_pcapng(NANO, [PACKET])[len(as_pcapng(NANO, [])) :]
UNKNOWN = struct.pack("<II", 99, 60_012) + bytes(60_000) + struct.pack("<I", 60_012)


@pytest.mark.parametrize(
    ("reader", "start", "part"),
    [
        pytest.param(PcapReader, pack_header(NANO), pack_record(NANO, PACKET), id="pcap"),
        pytest.param(PcapngReader, as_pcapng(NANO, []), BLOCK, id="pcapng"),
        pytest.param(PcapngReader, as_pcapng(NANO, []), UNKNOWN, id="blocks nobody knows"),
        pytest.param(PcapngReader, as_pcapng(NANO, []), as_pcapng(NANO, [PACKET]), id="sections"),
    ],
)
def test_memory_does_not_grow_with_the_file(
    reader: Callable[[BinaryIO], PcapReader | PcapngReader], start: bytes, part: bytes
) -> None:
    times = 1000
    file = Long(start, part, times)
    tracemalloc.start()
    try:
        opened = reader(cast(BinaryIO, file))
        for _ in opened:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert opened.end == len(start) + times * len(part)
    assert opened.damage == ""
    assert peak < MOST_MEMORY
