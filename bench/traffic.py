"""Numbered packets: sent by the generator, and found again in the files."""

import json
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import building
from bench.machine import SENDING_CORE
from bench.network import Link

PORT: Final = 7777
FILTER: Final = f"udp dst port {PORT}"
_FILE_HEADER: Final = 24
_HEADERS: Final = 42


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent.

    Attributes:
        frame: Bytes of an Ethernet frame without its checksum.
        rate: Packets per second; 0 for as fast as it goes.
    """

    frame: int
    rate: int
    count: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, and what the capturing interface was given of it."""

    sent: int
    arrived: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.sent / self.seconds


def send(link: Link, traffic: Traffic) -> Sent:
    """Send it all, from a core of its own."""
    before = link.received()
    command = [
        str(building.generator()), link.address, str(PORT),
        str(traffic.frame), str(traffic.rate), str(traffic.count),
    ]  # fmt: skip
    pinned = ["taskset", "-c", str(SENDING_CORE), *command]
    done = subprocess.run(link.in_peer(*pinned), check=True, stdout=subprocess.PIPE)
    said = json.loads(done.stdout)
    return Sent(said["sent"], link.received() - before, said["seconds"])


@dataclass(frozen=True, slots=True)
class Found:
    """Numbered packets in files.

    Attributes:
        lost: Numbers that are in no file.
        twice: Records whose number was there already.
        reordered: Records with a number below the one before it.
    """

    records: int
    lost: int
    twice: int
    reordered: int


def find(files: Iterable[Path], traffic: Traffic) -> Found:
    """Look at every record of the files, which are given in the order in which they were written.

    Raises:
        ValueError: a file is torn, or holds something else.
    """
    seen = bytearray(traffic.count)
    record = struct.Struct(f"<8xII{_HEADERS}xQ{traffic.frame - _HEADERS - 8}x")
    records = twice = reordered = 0
    last = -1
    for file in files:
        data = memoryview(file.read_bytes())[_FILE_HEADER:]
        if len(data) % record.size:
            raise ValueError(f"{file}: {len(data)} bytes are no whole records of {record.size}")
        for kept, length, number in record.iter_unpack(data):
            if kept != traffic.frame or length != traffic.frame or number >= traffic.count:
                raise ValueError(f"{file}: a record that nobody sent ({kept}, {length}, {number})")
            records += 1
            twice += seen[number]
            seen[number] = 1
            reordered += number < last
            last = number
    return Found(records, seen.count(0), twice, reordered)
