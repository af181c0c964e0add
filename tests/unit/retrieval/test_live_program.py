"""Live answers of the real program: what TLS, threads and readers that go make of them."""

import json
import struct

import pytest

from nightcap.pcap.pcapng import ENHANCED_PACKET
from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.builders import (
    FIRST_US,
    READER,
    a_key,
    a_pcap,
    a_record,
)
from tests.unit.retrieval.programs import Installation, wait_for

PATH = "/v1/namespaces/storefront/packetcaptures/dns/live.pcapng"


@pytest.fixture
def growing(growing: DirectoryStore) -> DirectoryStore:
    """One packet is in it."""
    growing.append(a_key(), 0, a_pcap(1), complete=False)
    return growing


class Reader:
    """One who reads live, and counts packets as they come."""

    def __init__(self, installation: Installation, port: int) -> None:
        self.connection = installation.connect(port)
        self.connection.request("GET", PATH, headers=READER)
        self.answer = self.connection.getresponse()
        self.received = self.packets = 0
        self._rest = b""

    def read_until(self, packets: int) -> None:
        """Read until so many packets are there; the connection's timeout ends a vain wait."""
        while self.packets < packets:
            assert self.read(), "the answer ended"

    def read(self) -> bool:
        """Read what there is; False at the end."""
        piece = self.answer.read1(2**18)
        self.received += len(piece)
        data = self._rest + piece
        begin = 0
        while begin + 8 <= len(data):
            kind, length = struct.unpack_from("<II", data, begin)
            if begin + length > len(data):
                break
            self.packets += kind == ENHANCED_PACKET
            begin += length
        self._rest = data[begin:]
        return bool(piece)

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def records(installation: Installation) -> list[dict[str, object]]:
    return [json.loads(line) for line in installation.audit().splitlines()]


def append(store: DirectoryStore, number: int, payload: bytes = b"x" * 60) -> None:
    record = a_record(FIRST_US + 10**6 * number, payload)
    store.append(a_key(), store.segment(a_key()).size, record, complete=False)


def test_readers_see_packets_as_they_come_and_their_leaving_is_noticed(
    installation: Installation, port: int, growing: DirectoryStore
) -> None:
    readers = [Reader(installation, port) for _ in range(3)]
    for number in range(1, 4):
        for reader in readers:
            reader.read_until(number)
        append(growing, number)
    assert records(installation) == []
    # Nothing is written to them meanwhile: their connections tell.
    readers[0].close()
    wait_for(lambda: len(records(installation)) == 1)
    assert records(installation)[0]["ended"] in ("complete", "cut")
    for reader in readers[1:]:
        reader.read_until(4)
        reader.close()
    wait_for(lambda: len(records(installation)) == 3)
    growing.close()


def test_a_reader_that_does_not_read_slows_nobody(
    installation: Installation, port: int, growing: DirectoryStore
) -> None:
    slow, quick = Reader(installation, port), Reader(installation, port)
    for number in range(1, 400):
        append(growing, number, bytes(65000))
    quick.read_until(400)
    slow.read_until(400)
    assert slow.packets == quick.packets == 400
    slow.close()
    quick.close()
    growing.close()


def test_live_answers_end_when_the_program_does(
    installation: Installation, port: int, growing: DirectoryStore
) -> None:
    reader = Reader(installation, port)
    reader.read_until(1)
    (process,) = installation.processes.values()
    process.terminate()
    while reader.read():
        pass
    # An answer that was cut would have raised.
    assert process.wait(40) == 0
    (record,) = records(installation)
    assert record["ended"] == "complete"
    assert record["bytes"] == reader.received
    reader.close()
    growing.close()
