"""Bytes on their way to a person: one file or a range of it, or a zip of many."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from zlib import crc32

from nightcap.contract.segments import SegmentKey
from retrieval.files.catalog import CaptureFile
from retrieval.files.zipping import Entry, Kind, Layout, Part
from retrieval.store.base import ReadableStore, SegmentReader

CHUNK_BYTES: Final = 2**18
_MAX_KNOWN: Final = 65536


class Vanished(Exception):
    """A file is shorter than what was promised; the answer can only be cut."""


@dataclass(frozen=True, slots=True)
class Body:
    """What is to be sent.

    Attributes:
        length: Bytes, exact.
        stack: Open files; to be closed when the body is sent or not.
    """

    length: int
    chunks: Iterator[bytes]
    stack: ExitStack


def part_of_file(store: ReadableStore, file: CaptureFile, begin: int, end: int) -> Body:
    """The bytes of a file from `begin` up to `end`.

    Raises:
        FileNotFoundError: it was deleted meanwhile.
    """
    stack = ExitStack()
    reader = stack.enter_context(store.open(file.key))
    return Body(end - begin, _chunks(reader, begin, end), stack)


class Checksums:
    """CRC-32 of whole files, remembered: a part of a zip needs those of all its files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[SegmentKey, int], int] = OrderedDict()

    def remember(self, file: CaptureFile, crc: int) -> None:
        with self._lock:
            self._known[file.key, file.size] = crc
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)

    def of(self, file: CaptureFile, reader: SegmentReader) -> int:
        """The checksum of a file as long as it is now; read if it is not known.

        Raises:
            Vanished: it is shorter than it was.
        """
        with self._lock:
            known = self._known.get((file.key, file.size))
        if known is not None:
            return known
        crc = 0
        for chunk in _chunks(reader, 0, file.size):
            crc = crc32(chunk, crc)
        self.remember(file, crc)
        return crc


class Archive:
    """A zip of files as long as they are now, stored; a file deleted meanwhile is left out.

    All are opened at once: a ring that drops its oldest does not break an answer under way.

    Attributes:
        length: Bytes of the whole.
        etag: Names these very bytes; None while a file of it still grows.
    """

    def __init__(self, store: ReadableStore, files: list[CaptureFile], known: Checksums) -> None:
        self._stack = ExitStack()
        self._known = known
        self._files: list[tuple[CaptureFile, SegmentReader]] = []
        try:
            for file in files:
                try:
                    reader = self._stack.enter_context(store.open(file.key))
                except FileNotFoundError:
                    continue
                self._files.append((file, reader))
        except BaseException:
            self._stack.close()
            raise
        kept = [file for file, _ in self._files]
        self._layout = Layout([Entry(file.name, file.size, file.first_ns) for file in kept])
        self.length = self._layout.length
        self.etag: str | None = None
        if all(file.complete for file in kept):
            names = "".join(f"{file.key.path} {file.size} {file.name}\n" for file in kept)
            self.etag = f"{sha256(names.encode()).hexdigest()[:16]}-{self.length}"

    def close(self) -> None:
        self._stack.close()

    def body(self, begin: int, end: int) -> Body:
        """The bytes from `begin` up to `end`; closes the archive when it is sent."""
        return Body(end - begin, self._bytes(begin, end), self._stack)

    def _bytes(self, begin: int, end: int) -> Iterator[bytes]:
        for part in self._layout.parts:
            if part.end <= begin or part.begin >= end:
                continue
            first, last = max(begin, part.begin) - part.begin, min(end, part.end) - part.begin
            if part.kind is Kind.DATA:
                yield from self._data(part, first, last)
            else:
                yield self._written(part)[first:last]

    def _data(self, part: Part, first: int, last: int) -> Iterator[bytes]:
        file, reader = self._files[part.index]
        is_whole = (first, last) == (0, file.size)
        crc = 0
        for chunk in _chunks(reader, first, last):
            if is_whole:
                crc = crc32(chunk, crc)
            yield chunk
        if is_whole:
            self._known.remember(file, crc)

    def _written(self, part: Part) -> bytes:
        match part.kind:
            case Kind.HEADER:
                return self._layout.header(part.index)
            case Kind.CHECKSUM:
                return self._layout.checksum(part.index, self._known.of(*self._files[part.index]))
            case _:
                return self._layout.directory([self._known.of(*each) for each in self._files])


def _chunks(reader: SegmentReader, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        chunk = reader.read_at(begin, min(CHUNK_BYTES, end - begin))
        if not chunk:
            raise Vanished(f"a file ends at {begin}, {end} bytes were promised")
        begin += len(chunk)
        yield chunk
