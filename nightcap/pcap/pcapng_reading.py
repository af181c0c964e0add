"""Files in pcapng format, read as a stream of values.

Read: what `pcapng` writes, simple packets, and the packet blocks of before 2008 (whose counts of
drops are passed over); other blocks are passed over. Reading is in constant memory. A damaged file
gives everything before the damage and a statement; only a file whose first block is no section
header raises.

Source: draft-ietf-opsawg-pcapng.
"""

import ipaddress
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from nightcap.pcap import pcapng
from nightcap.pcap.formats import MAX_RECORD_BYTES, PieceReader
from nightcap.pcap.pcapng import Interface, Names, Packet, Section, Statistics, Value

OLD_PACKET: Final = 2
MAX_BLOCK_BYTES: Final = 16 * 2**20
"""A longer block is damage; Wireshark has the same bound."""
MAX_INTERFACES: Final = 65536
"""Of one section; a file with more is there to fill our memory."""

_END_OF_OPTIONS: Final = 0
_MIN_BODY: Final = {
    pcapng.SECTION: 16,
    pcapng.INTERFACE: 8,
    OLD_PACKET: 20,
    pcapng.SIMPLE_PACKET: 4,
    pcapng.NAMES: 0,
    pcapng.STATISTICS: 12,
    pcapng.ENHANCED_PACKET: 20,
}


class NotPcapng(ValueError):
    """The file does not begin like a pcapng file."""


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
        if kind == pcapng.SECTION:
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
            case 2:
                return self._packet(body, struct.unpack_from(self._order + "H", body)[0])
            case 3:
                return self._simple_packet(body)
            case 4:
                return self._names(body)
            case 5:
                return self._statistics(body)
            case 6:
                return self._packet(body, struct.unpack_from(self._order + "I", body)[0])
            case _:
                return None

    def _section(self, body: bytes) -> Section:
        major, minor = struct.unpack_from(self._order + "HH", body, 4)
        if major != 1:
            raise _Damage(f"section of version {major}.{minor}")
        options = self._options(body, 16)
        self._interfaces.clear()
        return Section(
            self._order,
            _first_text(options, pcapng.SHB_APPLICATION),
            _texts(options, pcapng.COMMENT),
        )

    def _interface(self, body: bytes) -> Interface:
        if len(self._interfaces) >= MAX_INTERFACES:
            raise _Damage(f"more than {MAX_INTERFACES} interfaces")
        linktype, _, snaplen = struct.unpack_from(self._order + "HHI", body)
        options = self._options(body, 8)
        resolution = _first(options, pcapng.IF_RESOLUTION, 1) or b"\x06"
        base = 2 if resolution[0] & 0x80 else 10
        offset = _first(options, pcapng.IF_OFFSET, 8)
        interface = Interface(
            linktype=linktype,
            snaplen=snaplen,
            name=_first_text(options, pcapng.IF_NAME),
            description=_first_text(options, pcapng.IF_DESCRIPTION),
            ticks_per_second=base ** (resolution[0] & 0x7F),
            offset_seconds=struct.unpack(self._order + "q", offset)[0] if offset else 0,
            comments=_texts(options, pcapng.COMMENT),
        )
        self._interfaces.append(interface)
        return interface

    def _packet(self, body: bytes, number: int) -> Packet:
        """An enhanced packet, or an old one: they differ in their first four bytes alone."""
        high, low, kept, wire = struct.unpack_from(self._order + "IIII", body, 4)
        interface = self._interface_of(number)
        if kept > MAX_RECORD_BYTES or 20 + kept > len(body):
            raise _Damage(f"packet of {kept} bytes in a block of {len(body) + 12}")
        options = self._options(body, 20 + kept + (-kept & 3))
        time_ns = _nanoseconds(high << 32 | low, interface)
        return Packet(number, time_ns, wire, body[20 : 20 + kept], _texts(options, pcapng.COMMENT))

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
            size = {pcapng.NAME_IPV4: 4, pcapng.NAME_IPV6: 16}.get(kind, 0)
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
            received=count_of(pcapng.ISB_RECEIVED),
            dropped=count_of(pcapng.ISB_DROPPED),
            start_ns=time_of(pcapng.ISB_START),
            end_ns=time_of(pcapng.ISB_END),
            comments=_texts(options, pcapng.COMMENT),
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
            if start[8:12] == struct.pack(order + "I", pcapng.BYTE_ORDER_MAGIC):
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
