"""The pcapng file format: its values, and blocks written as bytes; `pcapng_reading` reads files.

Written: section header, interface description, enhanced packet, name resolution,
interface statistics.

Source: draft-ietf-opsawg-pcapng.
"""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
SIMPLE_PACKET: Final = 3
NAMES: Final = 4
STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6

# Numbers of options and of kinds of records, and what begins a section.
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
COMMENT: Final = 1
SHB_APPLICATION: Final = 4
IF_NAME: Final = 2
IF_DESCRIPTION: Final = 3
IF_RESOLUTION: Final = 9
IF_OFFSET: Final = 14
ISB_START, ISB_END, ISB_RECEIVED, ISB_DROPPED = 2, 3, 4, 5
NAME_IPV4, NAME_IPV6 = 1, 2
_MAX_OPTION_BYTES: Final = 65535


@dataclass(frozen=True, slots=True)
class Section:
    """What follows is in this byte order (`<` or `>`); interfaces are numbered anew."""

    byte_order: str = "<"
    application: str = ""
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets were captured.

    Attributes:
        ticks_per_second: The unit of time stamps, a power of ten or of two.
        offset_seconds: What is added to every time stamp.
    """

    linktype: int
    snaplen: int
    name: str = ""
    description: str = ""
    ticks_per_second: int = 10**9
    offset_seconds: int = 0
    comments: tuple[str, ...] = ()


class Packet(NamedTuple):
    """One packet.

    Attributes:
        interface: Number of the interface in its section.
        time_ns: Nanoseconds since the epoch; None of a simple packet, which has no time.
    """

    interface: int
    time_ns: int | None
    wire_bytes: int
    data: bytes
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """Addresses (as text) and their names."""

    records: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of one interface, so far as they are known.

    Attributes:
        time_ns: When they were read.
    """

    interface: int
    time_ns: int
    received: int | None = None
    dropped: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    comments: tuple[str, ...] = ()


Value = Section | Interface | Packet | Names | Statistics


def pack_section(section: Section) -> bytes:
    """The block that begins a section; its length is left open."""
    options = _comments(section.comments) + [
        (SHB_APPLICATION, text.encode()) for text in [section.application] if text
    ]
    order = section.byte_order
    body = struct.pack(order + "IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(order, SECTION, body + _pack_options(order, options))


def pack_interface(interface: Interface, byte_order: str = "<") -> bytes:
    """The block that describes the next interface of the section.

    Raises:
        ValueError: the unit of time is neither a power of ten nor of two.
    """
    options = _comments(interface.comments)
    if interface.name:
        options.append((IF_NAME, interface.name.encode()))
    if interface.description:
        options.append((IF_DESCRIPTION, interface.description.encode()))
    options.append((IF_RESOLUTION, bytes([_resolution(interface.ticks_per_second)])))
    if interface.offset_seconds:
        offset = struct.pack(byte_order + "q", interface.offset_seconds)
        options.append((IF_OFFSET, offset))
    body = struct.pack(byte_order + "HHI", interface.linktype, 0, interface.snaplen)
    return _block(byte_order, INTERFACE, body + _pack_options(byte_order, options))


def pack_packet(packet: Packet, interface: Interface, byte_order: str = "<") -> bytes:
    """One packet as an enhanced packet block.

    Raises:
        ValueError: it has no time.
    """
    if packet.time_ns is None:
        raise ValueError("a packet without a time cannot be written")
    ticks = _ticks(packet.time_ns, interface)
    body = struct.pack(
        byte_order + "IIIII",
        packet.interface,
        ticks >> 32,
        ticks & 0xFFFFFFFF,
        len(packet.data),
        packet.wire_bytes,
    )
    options = _comments(packet.comments)
    packed = _pack_options(byte_order, options)
    return _block(byte_order, ENHANCED_PACKET, body + _padded(packet.data) + packed)


def pack_names(names: Names, byte_order: str = "<") -> bytes:
    """The block that says what addresses are called; names too long for a record are cut off."""
    body = b""
    for text, called in names.records:
        address = ipaddress.ip_address(text)
        value = address.packed
        for name in called:
            encoded = name.encode().replace(b"\0", b"") + b"\0"
            if len(value) + len(encoded) <= _MAX_OPTION_BYTES:
                value += encoded
        kind = NAME_IPV4 if address.version == 4 else NAME_IPV6
        body += struct.pack(byte_order + "HH", kind, len(value)) + _padded(value)
    return _block(byte_order, NAMES, body + bytes(4))


def pack_statistics(statistics: Statistics, interface: Interface, byte_order: str = "<") -> bytes:
    """The block with an interface's counters."""

    def time_of(ns: int) -> bytes:
        ticks = _ticks(ns, interface)
        return struct.pack(byte_order + "II", ticks >> 32, ticks & 0xFFFFFFFF)

    options = _comments(statistics.comments)
    for code, ns in ((ISB_START, statistics.start_ns), (ISB_END, statistics.end_ns)):
        if ns is not None:
            options.append((code, time_of(ns)))
    for code, count in (
        (ISB_RECEIVED, statistics.received),
        (ISB_DROPPED, statistics.dropped),
    ):
        if count is not None:
            options.append((code, struct.pack(byte_order + "Q", count)))
    body = struct.pack(byte_order + "I", statistics.interface) + time_of(statistics.time_ns)
    return _block(byte_order, STATISTICS, body + _pack_options(byte_order, options))


def _block(order: str, kind: int, body: bytes) -> bytes:
    total = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + total + body + total


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) & 3)


def _comments(comments: Sequence[str]) -> list[tuple[int, bytes]]:
    return [(COMMENT, comment.encode()) for comment in comments]


def _pack_options(order: str, options: list[tuple[int, bytes]]) -> bytes:
    if not options:
        return b""
    packed = b"".join(
        struct.pack(order + "HH", code, len(value[:_MAX_OPTION_BYTES]))
        + _padded(value[:_MAX_OPTION_BYTES])
        for code, value in options
    )
    return packed + bytes(4)


def _resolution(ticks_per_second: int) -> int:
    for exponent in range(128):
        if ticks_per_second == 10**exponent:
            return exponent
        if ticks_per_second == 2**exponent:
            return exponent | 0x80
    raise ValueError(f"{ticks_per_second} ticks per second are no power of 10 or 2")


def _ticks(ns: int, interface: Interface) -> int:
    ticks = (ns - interface.offset_seconds * 10**9) * interface.ticks_per_second // 10**9
    if not 0 <= ticks < 2**64:
        raise ValueError(f"time {ns} ns cannot be written in this interface's unit")
    return ticks
