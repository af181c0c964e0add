import struct

import pytest

from retrieval.collector.file_names import FileNames
from retrieval.files.catalog import Catalog
from retrieval.store.base import Store
from tests.unit.retrieval.builders import CAPTURE, HEADER, META, STREAM, a_key, a_pcap

FIRST = 1_700_000_000_000_000


@pytest.fixture
def stored(store: Store) -> Store:
    store.create_stream(STREAM, META)
    return store


def put(store: Store, seq: int, body: bytes, interface: str = "eth0") -> None:
    store.append(a_key(seq, interface), 0, body, complete=True)


def test_names_are_those_that_people_see(stored: Store) -> None:
    for seq in range(1, 4):
        put(stored, seq, a_pcap(first_us=FIRST + seq * 10**6))
    put(stored, 1, a_pcap(first_us=FIRST), "net1")
    listed = [file.name for file in Catalog(stored).files(STREAM.namespace, CAPTURE)]
    names = FileNames(stored)
    assert list(names.newest(STREAM, META)) == sorted(listed)
    assert list(names.newest(STREAM, META)) == sorted(listed)  # as remembered
    assert len(listed) == 4


def test_only_the_newest_are_named(stored: Store) -> None:
    for seq in range(1, 6):
        put(stored, seq, a_pcap(first_us=FIRST + seq))
    names = FileNames(stored).newest(STREAM, META, 2)
    assert names == (f"web-0_eth0-{FIRST + 4}.pcap", f"web-0_eth0-{FIRST + 5}.pcap")


def test_what_has_no_packet_or_is_no_capture_has_no_name(stored: Store) -> None:
    put(stored, 1, HEADER)
    put(stored, 2, b"x" * 100)
    assert FileNames(stored).newest(STREAM, META) == ()


def test_nanoseconds_and_the_other_byte_order_are_understood(stored: Store) -> None:
    header = struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    put(stored, 1, header + struct.pack(">IIII", 7, 5_000, 1, 1) + b"x")
    assert FileNames(stored).newest(STREAM, META) == ("web-0_eth0-7000005.pcap",)


def test_a_deleted_file_is_not_named_any_more(stored: Store) -> None:
    put(stored, 1, a_pcap())
    names = FileNames(stored)
    assert len(names.newest(STREAM, META)) == 1
    stored.delete_segment(a_key(1))
    assert names.newest(STREAM, META) == ()
