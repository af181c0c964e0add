"""A zip of stored files as a layout: its length, and any part of it, before a byte is read. Pure.

Every file is followed by its checksum, so that sending begins at once; sizes are known and
stand before it as well. The same files make the same bytes, so that a part of an archive can
be asked for. Where 4 GiB or 65 535 files are passed, and only there, the fields of zip64 are used.

Source: APPNOTE.TXT 6.3.10, PKWARE.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Final

_MOST_32: Final = 0xFFFFFFFF
_MOST_16: Final = 0xFFFF
_FLAGS: Final = 0x0808
"""The checksum comes after the data; names are UTF-8."""
_MADE_BY_UNIX: Final = 3 << 8
_MODE: Final = 0o100640 << 16
_ZIP64: Final = 45
_PLAIN: Final = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its size in bytes, and a time in nanoseconds since the epoch."""

    name: str
    size: int
    at_ns: int


class Kind(StrEnum):
    """What a part of an archive is."""

    HEADER = "header"
    DATA = "data"
    CHECKSUM = "checksum"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Part:
    """A run of bytes of the archive: `index` says of which entry; the directory is of all."""

    kind: Kind
    index: int
    begin: int
    end: int


class Layout:
    """Where everything lies in the archive of some entries."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = tuple(entries)
        self.parts: list[Part] = []
        self._headers_at: list[int] = []
        at = 0
        for index, entry in enumerate(self._entries):
            self._headers_at.append(at)
            lengths = (len(self.header(index)), entry.size, len(self.checksum(index, 0)))
            ends = [at]
            for length in lengths:
                ends.append(ends[-1] + length)
            kinds = (Kind.HEADER, Kind.DATA, Kind.CHECKSUM)
            for kind, (begin, end) in zip(kinds, pairwise(ends), strict=True):
                self.parts.append(Part(kind, index, begin, end))
            at = ends[-1]
        self._directory_at = at
        end = at + len(self.directory([0] * len(self._entries)))
        self.parts.append(Part(Kind.DIRECTORY, -1, at, end))
        self.length = end

    def header(self, index: int) -> bytes:
        """What stands before an entry's data."""
        entry = self._entries[index]
        name, is_large = entry.name.encode(), entry.size >= _MOST_32
        extra = struct.pack("<HHQQ", 1, 16, entry.size, entry.size) if is_large else b""
        size = _MOST_32 if is_large else entry.size
        return (
            struct.pack(
                "<IHHHIIIIHH",
                0x04034B50,
                _ZIP64 if is_large else _PLAIN,
                _FLAGS,
                0,
                _dos_time(entry.at_ns),
                0,
                size,
                size,
                len(name),
                len(extra),
            )
            + name
            + extra
        )

    def checksum(self, index: int, crc: int) -> bytes:
        """What stands behind an entry's data."""
        size = self._entries[index].size
        form = "<IIQQ" if size >= _MOST_32 else "<IIII"
        return struct.pack(form, 0x08074B50, crc, size, size)

    def directory(self, crcs: Sequence[int]) -> bytes:
        """The end of the archive: where every entry is."""
        records = b"".join(self._record(index, crc) for index, crc in enumerate(crcs))
        count, begin = len(self._entries), self._directory_at
        end = b""
        if count >= _MOST_16 or begin >= _MOST_32 or len(records) >= _MOST_32:
            end = struct.pack(
                "<IQHHIIQQQQ",
                0x06064B50,
                44,
                _MADE_BY_UNIX | _ZIP64,
                _ZIP64,
                0,
                0,
                count,
                count,
                len(records),
                begin,
            ) + struct.pack("<IIQI", 0x07064B50, 0, begin + len(records), 1)
        return (
            records
            + end
            + struct.pack(
                "<IHHHHIIH",
                0x06054B50,
                0,
                0,
                min(count, _MOST_16),
                min(count, _MOST_16),
                min(len(records), _MOST_32),
                min(begin, _MOST_32),
                0,
            )
        )

    def _record(self, index: int, crc: int) -> bytes:
        entry, at = self._entries[index], self._headers_at[index]
        name, large = entry.name.encode(), []
        if entry.size >= _MOST_32:
            large += [entry.size, entry.size]
        if at >= _MOST_32:
            large.append(at)
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        needs = _ZIP64 if large else _PLAIN
        size = min(entry.size, _MOST_32)
        return (
            struct.pack(
                "<IHHHHIIIIHHHHHII",
                0x02014B50,
                _MADE_BY_UNIX | needs,
                needs,
                _FLAGS,
                0,
                _dos_time(entry.at_ns),
                crc,
                size,
                size,
                len(name),
                len(extra),
                0,
                0,
                0,
                _MODE,
                min(at, _MOST_32),
            )
            + name
            + extra
        )


def _dos_time(ns: int) -> int:
    """Date and time of two seconds each, from 1980 on, in UTC as all of our times."""
    at = datetime.fromtimestamp(max(ns // 10**9, 315532800), UTC)
    date = min(at.year - 1980, 127) << 9 | at.month << 5 | at.day
    return date << 16 | at.hour << 11 | at.minute << 5 | at.second // 2
