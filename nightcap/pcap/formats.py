"""The pcap file format: micro- and nanosecond files of either byte order, by struct.

Reading is streaming and in constant memory. A damaged file gives everything before
the damage and a statement; only a file whose header is none raises.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

HEADER_BYTES: Final = 24
RECORD_HEADER_BYTES: Final = 16
FIRST_TIME_BYTES: Final = HEADER_BYTES + 8
"""What of a file tells when its first packet came."""
MAX_RECORD_BYTES: Final = 262144
"""The largest snap length that libpcap knows; a longer record is damage."""

_MICROSECONDS: Final = 0xA1B2C3D4
_NANOSECONDS: Final = 0xA1B23C4D
_CHUNK_BYTES: Final = 2**20
_MAGICS: Final = {
    struct.pack(order + "I", magic): (order, magic == _NANOSECONDS)
    for order in "<>"
    for magic in (_MICROSECONDS, _NANOSECONDS)
}


class NotPcap(ValueError):
    """The file does not begin like a pcap file."""


class Header(NamedTuple):
    """What a file says of all of its packets.

    Attributes:
        byte_order: `<` or `>`, as for struct.
    """

    linktype: int
    snaplen: int
    nanoseconds: bool
    byte_order: str = "<"


class Record(NamedTuple):
    """One packet: when (nanoseconds since the epoch), how long on the wire, what was kept."""

    time_ns: int
    wire_bytes: int
    data: bytes


class Scan(NamedTuple):
    """What is in a file.

    Attributes:
        first_ns: Time of the first record, nanoseconds since the epoch; None without records.
        end: Where the last whole record ends; what lies behind it is damage.
        damage: What is wrong after `end`, empty when the file ends there.
    """

    linktype: int
    snaplen: int
    nanoseconds: bool
    packets: int
    first_ns: int | None
    last_ns: int | None
    end: int
    damage: str = ""


def pack_header(header: Header) -> bytes:
    """The first 24 bytes of a file."""
    magic = _NANOSECONDS if header.nanoseconds else _MICROSECONDS
    return struct.pack(
        header.byte_order + "IHHiIII", magic, 2, 4, 0, 0, header.snaplen, header.linktype
    )


def pack_record(header: Header, record: Record) -> bytes:
    """One record as it stands in a file with this header."""
    seconds, nanoseconds = divmod(record.time_ns, 10**9)
    fraction = nanoseconds if header.nanoseconds else nanoseconds // 1000
    return (
        struct.pack(
            header.byte_order + "IIII", seconds, fraction, len(record.data), record.wire_bytes
        )
        + record.data
    )


def parse_header(start: bytes) -> Header:
    """Read the first 24 bytes of a file.

    Raises:
        NotPcap: too short, or another format.
    """
    if len(start) < HEADER_BYTES:
        raise NotPcap(f"file has {len(start)} bytes; a pcap header alone takes {HEADER_BYTES}")
    known = _MAGICS.get(start[:4])
    if known is None:
        raise NotPcap(f"file begins with {start[:4].hex()}; that is no pcap file")
    order, nanoseconds = known
    major, minor, _, _, snaplen, linktype = struct.unpack(order + "HHiIII", start[4:HEADER_BYTES])
    if major != 2:
        raise NotPcap(f"pcap version {major}.{minor} is unknown; 2.4 is read")
    # The upper bits say how long the frame check sequence is.
    return Header(linktype & 0x0FFFFFFF, snaplen, nanoseconds, order)


def first_time_ns(start: bytes) -> int:
    """Time of a file's first record, from its first `FIRST_TIME_BYTES`.

    Raises:
        NotPcap: too short, or another format.
    """
    header = parse_header(start)
    if len(start) < FIRST_TIME_BYTES:
        raise NotPcap(f"file has {len(start)} bytes; its first record is not there")
    order = f"{header.byte_order}II"
    seconds, fraction = struct.unpack(order, start[HEADER_BYTES:FIRST_TIME_BYTES])
    nanoseconds: int = seconds * 10**9 + fraction * (1 if header.nanoseconds else 1000)
    return nanoseconds


class PieceReader:
    """A file that is read in pieces; where it ends too early is said, not raised.

    Attributes:
        end: Where the last record or block that was understood ends.
        damage: Set when reading ended at something that is none.
    """

    def __init__(self, file: BinaryIO, begin: int) -> None:
        """Read the first piece; what is of interest begins at byte `begin`."""
        self._file = file
        self._buffer = file.read(_CHUNK_BYTES)
        self._offset = begin
        self.end = begin
        self.damage = ""

    def _fill(self, wanted: int, what: str) -> bool:
        """Have so many bytes at the offset, or say what is missing."""
        while (have := len(self._buffer) - self._offset) < wanted:
            more = self._file.read(_CHUNK_BYTES)
            if not more:
                if have:
                    self.damage = f"{what} at byte {self.end} is cut off"
                return False
            self._buffer = self._buffer[self._offset :] + more
            self._offset = 0
        return True


class PcapReader(PieceReader):
    """Records of one file, read in pieces.

    Attributes:
        header: What the file says of all of its packets.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Raises:
            NotPcap: the file begins otherwise.
        """
        super().__init__(file, HEADER_BYTES)
        self.header = parse_header(self._buffer)

    def __iter__(self) -> Iterator[Record]:
        unit = 1 if self.header.nanoseconds else 1000
        head = struct.Struct(self.header.byte_order + "IIII")
        while self._fill(RECORD_HEADER_BYTES, "record header"):
            seconds, fraction, kept, wire = head.unpack_from(self._buffer, self._offset)
            if kept > MAX_RECORD_BYTES or fraction * unit >= 10**9:
                self.damage = f"no record at byte {self.end}"
                return
            if not self._fill(RECORD_HEADER_BYTES + kept, "record"):
                return
            begin = self._offset + RECORD_HEADER_BYTES
            self._offset = begin + kept
            self.end += RECORD_HEADER_BYTES + kept
            yield Record(
                seconds * 10**9 + fraction * unit, wire, self._buffer[begin : self._offset]
            )


def scan(file: BinaryIO) -> Scan:
    """Count the packets of a file and find where its last whole record ends.

    Raises:
        NotPcap: the file begins otherwise.
    """
    reader = PcapReader(file)
    packets, first, last = 0, None, None
    for record in reader:
        packets += 1
        last = record.time_ns
        if first is None:
            first = last
    return Scan(
        linktype=reader.header.linktype,
        snaplen=reader.header.snaplen,
        nanoseconds=reader.header.nanoseconds,
        packets=packets,
        first_ns=first,
        last_ns=last,
        end=reader.end,
        damage=reader.damage,
    )


def record_boundary(data: bytes, byte_order: str) -> int:
    """Where the last whole record in `data` ends, when `data` begins with a record."""
    head = struct.Struct(byte_order + "8xI4x")
    end = 0
    while end + RECORD_HEADER_BYTES <= len(data):
        following = end + RECORD_HEADER_BYTES + head.unpack_from(data, end)[0]
        if following > len(data):
            break
        end = following
    return end
