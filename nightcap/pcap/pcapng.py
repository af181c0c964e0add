"""The pcapng file format: blocks written as bytes, files read as a stream of values.

Written: section header, interface description, enhanced packet, name resolution,
interface statistics. Read: these and simple packets; other blocks are passed over.
Reading is in constant memory. A damaged file gives everything before the damage and a
statement; only a file whose first block is no section header raises.

Source: draft-ietf-opsawg-pcapng.
"""

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from nightcap.pcap.formats import MAX_RECORD_BYTES, PieceReader

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
SIMPLE_PACKET: Final = 3
NAMES: Final = 4
STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6

MAX_BLOCK_BYTES: Final = 16 * 2**20
"""A longer block is damage; Wireshark has the same bound."""
MAX_INTERFACES: Final = 65536
"""Of one section; a file with more is there to fill our memory."""

_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_END_OF_OPTIONS: Final = 0
_COMMENT: Final = 1
_SHB_APPLICATION: Final = 4
_IF_NAME: Final = 2
_IF_DESCRIPTION: Final = 3
_IF_RESOLUTION: Final = 9
_IF_OFFSET: Final = 14
_ISB_START, _ISB_END, _ISB_RECEIVED, _ISB_DROPPED = 2, 3, 4, 5
_NAME_IPV4, _NAME_IPV6 = 1, 2
_MAX_OPTION_BYTES: Final = 65535
_MIN_BODY: Final = {
    SECTION: 16,
    INTERFACE: 8,
    SIMPLE_PACKET: 4,
    NAMES: 0,
    STATISTICS: 12,
    ENHANCED_PACKET: 20,
}


class NotPcapng(ValueError):
    """The file does not begin like a pcapng file."""


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


# Writing.


def pack_section(section: Section) -> bytes:
    """The block that begins a section; its length is left open."""
    options = _comments(section.comments) + [
        (_SHB_APPLICATION, text.encode()) for text in [section.application] if text
    ]
    order = section.byte_order
    body = struct.pack(order + "IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(order, SECTION, body + _pack_options(order, options))


def pack_interface(interface: Interface, byte_order: str = "<") -> bytes:
    """The block that describes the next interface of the section.

    Raises:
        ValueError: the unit of time is neither a power of ten nor of two.
    """
    options = _comments(interface.comments)
    if interface.name:
        options.append((_IF_NAME, interface.name.encode()))
    if interface.description:
        options.append((_IF_DESCRIPTION, interface.description.encode()))
    options.append((_IF_RESOLUTION, bytes([_resolution(interface.ticks_per_second)])))
    if interface.offset_seconds:
        offset = struct.pack(byte_order + "q", interface.offset_seconds)
        options.append((_IF_OFFSET, offset))
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
        kind = _NAME_IPV4 if address.version == 4 else _NAME_IPV6
        body += struct.pack(byte_order + "HH", kind, len(value)) + _padded(value)
    return _block(byte_order, NAMES, body + bytes(4))


def pack_statistics(statistics: Statistics, interface: Interface, byte_order: str = "<") -> bytes:
    """The block with an interface's counters."""

    def time_of(ns: int) -> bytes:
        ticks = _ticks(ns, interface)
        return struct.pack(byte_order + "II", ticks >> 32, ticks & 0xFFFFFFFF)

    options = _comments(statistics.comments)
    for code, ns in ((_ISB_START, statistics.start_ns), (_ISB_END, statistics.end_ns)):
        if ns is not None:
            options.append((code, time_of(ns)))
    for code, count in (
        (_ISB_RECEIVED, statistics.received),
        (_ISB_DROPPED, statistics.dropped),
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
    return [(_COMMENT, comment.encode()) for comment in comments]


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


# Reading.


class _Damage(Exception):
    """What is wrong with a block."""


class PcapngReader(PieceReader):
    """Values of one file, read in pieces."""

    def __init__(self, file: BinaryIO) -> None:
        """Look at the first bytes.

        Raises:
            NotPcapng: the file begins otherwise.
        """
        super().__init__(file, 0)
        self._order = _order_of(self._buffer)
        self._interfaces: list[Interface] = []

    def __iter__(self) -> Iterator[Value]:
        while not self.damage and self._fill(12, "block header"):
            try:
                value = self._next()
            except _Damage as damage:
                self.damage = f"{damage} at byte {self.end}"
                return
            if value is not None:
                yield value

    def _next(self) -> Value | None:
        """The value of the next block; None of a block that is passed over."""
        kind = struct.unpack_from(self._order + "I", self._buffer, self._offset)[0]
        if kind == SECTION:
            try:
                self._order = _order_of(self._buffer[self._offset : self._offset + 12])
            except NotPcapng:
                raise _Damage("section header without a byte order") from None
        length = struct.unpack_from(self._order + "I", self._buffer, self._offset + 4)[0]
        if length < 12 + _MIN_BODY.get(kind, 0) or length % 4 or length > MAX_BLOCK_BYTES:
            raise _Damage(f"block of {length} bytes")
        if not self._fill(length, "block"):
            return None
        begin, end = self._offset + 8, self._offset + length - 4
        if struct.unpack_from(self._order + "I", self._buffer, end)[0] != length:
            raise _Damage("block whose two lengths differ")
        value = self._parse(kind, self._buffer[begin:end])
        self._offset += length
        self.end += length
        return value

    def _parse(self, kind: int, body: bytes) -> Value | None:
        match kind:
            case 0x0A0D0D0A:
                return self._section(body)
            case 1:
                return self._interface(body)
            case 3:
                return self._simple_packet(body)
            case 4:
                return self._names(body)
            case 5:
                return self._statistics(body)
            case 6:
                return self._packet(body)
            case _:
                return None

    def _section(self, body: bytes) -> Section:
        major, minor = struct.unpack_from(self._order + "HH", body, 4)
        if major != 1:
            raise _Damage(f"section of version {major}.{minor}")
        options = self._options(body, 16)
        self._interfaces.clear()
        return Section(
            self._order, _first_text(options, _SHB_APPLICATION), _texts(options, _COMMENT)
        )

    def _interface(self, body: bytes) -> Interface:
        if len(self._interfaces) >= MAX_INTERFACES:
            raise _Damage(f"more than {MAX_INTERFACES} interfaces")
        linktype, _, snaplen = struct.unpack_from(self._order + "HHI", body)
        options = self._options(body, 8)
        resolution = _first(options, _IF_RESOLUTION, 1) or b"\x06"
        base = 2 if resolution[0] & 0x80 else 10
        offset = _first(options, _IF_OFFSET, 8)
        interface = Interface(
            linktype=linktype,
            snaplen=snaplen,
            name=_first_text(options, _IF_NAME),
            description=_first_text(options, _IF_DESCRIPTION),
            ticks_per_second=base ** (resolution[0] & 0x7F),
            offset_seconds=struct.unpack(self._order + "q", offset)[0] if offset else 0,
            comments=_texts(options, _COMMENT),
        )
        self._interfaces.append(interface)
        return interface

    def _packet(self, body: bytes) -> Packet:
        number, high, low, kept, wire = struct.unpack_from(self._order + "IIIII", body)
        interface = self._interface_of(number)
        if kept > MAX_RECORD_BYTES or 20 + kept > len(body):
            raise _Damage(f"packet of {kept} bytes in a block of {len(body) + 12}")
        options = self._options(body, 20 + kept + (-kept & 3))
        time_ns = _nanoseconds(high << 32 | low, interface)
        return Packet(number, time_ns, wire, body[20 : 20 + kept], _texts(options, _COMMENT))

    def _simple_packet(self, body: bytes) -> Packet:
        interface = self._interface_of(0)
        wire = struct.unpack_from(self._order + "I", body)[0]
        kept = min(wire, interface.snaplen or wire)
        if kept > len(body) - 4:
            raise _Damage(f"packet of {kept} bytes in a block of {len(body) + 12}")
        return Packet(0, None, wire, body[4 : 4 + kept])

    def _names(self, body: bytes) -> Names:
        records = []
        offset = 0
        while offset + 4 <= len(body):
            kind, length = struct.unpack_from(self._order + "HH", body, offset)
            if kind == 0:
                break
            value = body[offset + 4 : offset + 4 + length]
            size = {_NAME_IPV4: 4, _NAME_IPV6: 16}.get(kind, 0)
            if len(value) < length or length < size:
                raise _Damage("name resolution record that does not fit")
            if size:
                address = str(ipaddress.ip_address(value[:size]))
                names = tuple(name for name in _text(value[size:]).split("\0") if name)
                records.append((address, names))
            offset += 4 + length + (-length & 3)
        return Names(tuple(records))

    def _statistics(self, body: bytes) -> Statistics:
        number, high, low = struct.unpack_from(self._order + "III", body)
        interface = self._interface_of(number)
        options = self._options(body, 12)

        def time_of(code: int) -> int | None:
            value = _first(options, code, 8)
            if value is None:
                return None
            first, second = struct.unpack(self._order + "II", value)
            return _nanoseconds(first << 32 | second, interface)

        def count_of(code: int) -> int | None:
            value = _first(options, code, 8)
            return None if value is None else int(struct.unpack(self._order + "Q", value)[0])

        return Statistics(
            interface=number,
            time_ns=_nanoseconds(high << 32 | low, interface),
            received=count_of(_ISB_RECEIVED),
            dropped=count_of(_ISB_DROPPED),
            start_ns=time_of(_ISB_START),
            end_ns=time_of(_ISB_END),
            comments=_texts(options, _COMMENT),
        )

    def _interface_of(self, number: int) -> Interface:
        if number >= len(self._interfaces):
            raise _Damage(f"interface {number} was not described")
        return self._interfaces[number]

    def _options(self, body: bytes, offset: int) -> list[tuple[int, bytes]]:
        found = []
        while offset + 4 <= len(body):
            code, length = struct.unpack_from(self._order + "HH", body, offset)
            if code == _END_OF_OPTIONS:
                break
            value = body[offset + 4 : offset + 4 + length]
            if len(value) < length:
                raise _Damage("option that does not fit")
            found.append((code, value))
            offset += 4 + length + (-length & 3)
        return found


def _order_of(start: bytes) -> str:
    """The byte order that a section header names.

    Raises:
        NotPcapng: these bytes begin none.
    """
    if start[:4] == b"\x0a\x0d\x0d\x0a":
        for order in "<>":
            if start[8:12] == struct.pack(order + "I", _BYTE_ORDER_MAGIC):
                return order
    raise NotPcapng(f"file begins with {start[:12].hex() or 'nothing'}; that is no pcapng file")


def _nanoseconds(ticks: int, interface: Interface) -> int:
    return interface.offset_seconds * 10**9 + ticks * 10**9 // interface.ticks_per_second


def _first(options: list[tuple[int, bytes]], code: int, size: int) -> bytes | None:
    return next((value for each, value in options if each == code and len(value) == size), None)


def _texts(options: list[tuple[int, bytes]], code: int) -> tuple[str, ...]:
    return tuple(_text(value) for each, value in options if each == code)


def _first_text(options: list[tuple[int, bytes]], code: int) -> str:
    texts = _texts(options, code)
    return texts[0].partition("\0")[0] if texts else ""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
