"""Records of a pcap file become packet blocks of a pcapng file, many at a time.

The loop is what a merge costs: a record's lengths and data stand in a block as they
stand in the file, so that each packet takes one struct.unpack, one struct.pack and one
copy.
"""

import struct
from itertools import accumulate
from typing import Final, NamedTuple

from nightcap.pcap.formats import MAX_RECORD_BYTES, RECORD_HEADER_BYTES, Header
from nightcap.pcap.pcapng import ENHANCED_PACKET

_MAX_CACHED: Final = 4096


class Batch(NamedTuple):
    """Packets of one stream, one after the other.

    Attributes:
        times: Nanoseconds since the epoch, as the packets say.
        blocks: The packets as blocks of a little-endian section, in nanoseconds.
        end: How many bytes of the input were understood.
        damage: Why no more were, when that is no question of more bytes.
    """

    times: list[int]
    blocks: list[bytes]
    end: int
    damage: str = ""


def rewrite(data: bytes, header: Header, interface: int) -> Batch:
    """Turn the whole records in `data`, which begins with one, into blocks of an interface."""
    if header.byte_order != "<":
        data = _little_endian(data)
    times: list[int] = []
    blocks: list[bytes] = []
    ends: dict[int, tuple[int, bytes]] = {}  # captured length: length of the block, what ends it
    unpack = struct.Struct("<III").unpack_from
    pack = struct.Struct("<IIIII").pack
    unit = 1 if header.nanoseconds else 1000
    add_time, add_block = times.append, blocks.append
    size = len(data)
    begin, last = 0, size - RECORD_HEADER_BYTES
    damage = ""
    while begin <= last:
        seconds, fraction, kept = unpack(data, begin)
        following = begin + RECORD_HEADER_BYTES + kept
        fraction *= unit
        if kept > MAX_RECORD_BYTES or fraction >= 1_000_000_000:
            damage = "no record"
            break
        if following > size:
            break
        time_ns = seconds * 1_000_000_000 + fraction
        known = ends.get(kept)
        if known is None:
            if len(ends) >= _MAX_CACHED:
                ends.clear()
            total = 32 + kept + (-kept & 3)
            known = ends[kept] = (total, bytes(-kept & 3) + struct.pack("<I", total))
        add_time(time_ns)
        add_block(
            pack(ENHANCED_PACKET, known[0], interface, time_ns >> 32, time_ns & 0xFFFFFFFF)
            + data[begin + 8 : following]
            + known[1]
        )
        begin = following
    return Batch(times, blocks, begin, damage)


def _little_endian(data: bytes) -> bytes:
    """The same records with their headers turned round, as far as there are any."""
    turned = bytearray(data)
    begin = 0
    while begin + RECORD_HEADER_BYTES <= len(data):
        fields = struct.unpack_from(">IIII", data, begin)
        struct.pack_into("<IIII", turned, begin, *fields)
        begin += RECORD_HEADER_BYTES + fields[2]
    return bytes(turned)


def in_order(times: list[int], floor: int) -> list[int]:
    """Keys to sort by: never less than one before, so that a stream keeps its own order.

    The kernel's stamps are not always in the order of the packets (several CPUs).
    """
    return list(accumulate(times, max, initial=floor))[1:]
