import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.pcap.formats import (
    HEADER_BYTES,
    Header,
    NotPcap,
    PcapReader,
    Record,
    pack_header,
    pack_record,
    parse_header,
    record_boundary,
    scan,
)

headers = st.builds(
    Header,
    linktype=st.sampled_from([1, 113, 276]),
    snaplen=st.integers(1, 262144),
    nanoseconds=st.booleans(),
    byte_order=st.sampled_from("<>"),
)
# Whole microseconds, so that both kinds of file hold them.
records = st.builds(
    Record,
    time_ns=st.integers(0, 2**32 * 10**6 - 1).map(lambda micros: micros * 1000),
    wire_bytes=st.integers(0, 2**32 - 1),
    data=st.binary(max_size=80),
)


def a_file(header: Header, found: list[Record]) -> bytes:
    return pack_header(header) + b"".join(pack_record(header, record) for record in found)


@given(headers, st.lists(records, max_size=8))
def test_what_is_written_is_read(header: Header, found: list[Record]) -> None:
    reader = PcapReader(io.BytesIO(a_file(header, found)))
    assert list(reader) == found
    assert reader.header == header
    assert reader.damage == ""


@given(headers, st.lists(records, max_size=8), st.integers(HEADER_BYTES, 800))
def test_a_cut_file_gives_all_before_the_cut_and_says_so(
    header: Header, found: list[Record], cut: int
) -> None:
    data = a_file(header, found)
    result = scan(io.BytesIO(data[:cut]))
    ends = [len(a_file(header, found[:number])) for number in range(len(found) + 1)]
    whole = [end for end in ends if end <= cut]
    assert (result.packets, result.end) == (len(whole) - 1, whole[-1])
    assert bool(result.damage) == (min(cut, len(data)) != whole[-1])
    if result.packets:
        assert result.first_ns == found[0].time_ns
        assert result.last_ns == found[result.packets - 1].time_ns


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_statement(tail: bytes) -> None:
    for data in (tail, pack_header(Header(1, 65535, nanoseconds=True)) + tail):
        try:
            result = scan(io.BytesIO(data))
        except NotPcap:
            continue
        assert result.end <= len(data)
        assert bool(result.damage) == (result.end < len(data))


def test_a_length_beyond_all_bounds_is_damage() -> None:
    header = Header(1, 65535, nanoseconds=False)
    data = a_file(header, [Record(0, 4, b"good")]) + bytes(8) + b"\xff\xff\xff\x7f" + bytes(4)
    result = scan(io.BytesIO(data))
    assert (result.packets, result.damage) == (1, f"no record at byte {len(data) - 16}")


def test_other_formats_are_refused_in_words() -> None:
    with pytest.raises(NotPcap, match="begins with 0a0d0d0a"):
        parse_header(b"\x0a\x0d\x0d\x0a" + bytes(20))
    with pytest.raises(NotPcap, match="24"):
        parse_header(b"\xd4\xc3\xb2\xa1")
    with pytest.raises(NotPcap, match="version"):
        parse_header(b"\xd4\xc3\xb2\xa1\x09\x00" + bytes(18))


@given(st.lists(records, max_size=6), st.integers(0, 600))
def test_a_boundary_is_the_end_of_the_last_whole_record(found: list[Record], cut: int) -> None:
    header = Header(1, 65535, nanoseconds=True)
    packed = [pack_record(header, record) for record in found]
    ends = [sum(map(len, packed[:number])) for number in range(len(packed) + 1)]
    assert record_boundary(b"".join(packed)[:cut], "<") == max(end for end in ends if end <= cut)


def test_scapy_reads_what_is_written(tmp_path: Path) -> None:
    from scapy.utils import RawPcapReader

    found = [
        Record(1_700_000_000_123_456_789, 60, b"x" * 60),
        Record(1_700_000_001 * 10**9, 9, b""),
    ]
    data = a_file(Header(1, 65535, nanoseconds=True), found)
    path = tmp_path / "written.pcap"
    path.write_bytes(data)
    with RawPcapReader(str(path)) as reader:
        theirs = [(meta.sec * 10**9 + meta.usec, meta.wirelen, raw) for raw, meta in reader]
    assert theirs == [tuple(record) for record in found]
