"""The files of a capture as people see them: names, times, counts, and how much is whole.

Counting needs the whole file to be read; what was counted once is remembered, growing
files are counted on from there, and one listing counts for a bounded time.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, cast

from nightcap.contract.segments import FileName, SegmentKey
from nightcap.pcap.formats import HEADER_BYTES, RECORD_HEADER_BYTES, NotPcap, PcapReader
from retrieval.store.base import ReadableStore, SegmentReader, StoredSegment, StreamMeta

COUNT_SECONDS: Final = 2.0
"""How long one listing reads files to count packets; what is left is counted by the next."""
_MAX_KNOWN: Final = 65536


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """One file.

    Attributes:
        size: Bytes of whole records; more may be there of a growing one.
        packets: None when it was not counted yet; so is `last_ns`.
    """

    name: str
    key: SegmentKey
    meta: StreamMeta
    size: int
    complete: bool
    first_ns: int
    last_ns: int | None
    packets: int | None


@dataclass(frozen=True, slots=True)
class _Known:
    """How far a segment was read.

    Attributes:
        end: Where the last whole record ended.
        seen: The size of which `end` is the last boundary.
    """

    first_ns: int
    last_ns: int
    packets: int
    end: int
    seen: int


class Catalog:
    """Lists files; remembers what reading them has shown."""

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[SegmentKey, _Known] = OrderedDict()

    def files(
        self, namespace: str, capture: str, *, count_seconds: float = 0.0
    ) -> list[CaptureFile]:
        """All files of a capture by pod, interface and time; those without a packet are not there.

        Args:
            namespace: Of the capture.
            capture: Its uid.
            count_seconds: How long to read files only to count their packets.
        """
        deadline = time.monotonic() + count_seconds
        found = []
        for stream in self._store.streams(namespace, capture):
            meta = self._store.meta(stream)
            if meta is None:
                continue
            for segment in self._store.segments(stream):
                file = self._file(segment, meta, deadline)
                if file is not None:
                    found.append(file)
        return _named(found)

    def _file(
        self, segment: StoredSegment, meta: StreamMeta, deadline: float
    ) -> CaptureFile | None:
        if segment.size < HEADER_BYTES + RECORD_HEADER_BYTES:
            return None
        known = self._recall(segment)
        must_count = not segment.complete or time.monotonic() < deadline
        if known is None or (known.seen < segment.size and must_count):
            try:
                with self._store.open(segment.key) as reader:
                    known = _read_on(
                        reader, known, segment.size, count=not segment.complete, until=deadline
                    )
            except (FileNotFoundError, NotPcap):
                return None
            if known is None:
                return None
            self._remember(segment.key, known)
        is_counted = known.seen >= segment.size
        return CaptureFile(
            name="",
            key=segment.key,
            meta=meta,
            size=segment.size if segment.complete else known.end,
            complete=segment.complete,
            first_ns=known.first_ns,
            last_ns=known.last_ns if is_counted else None,
            packets=known.packets if is_counted else None,
        )

    def _recall(self, segment: StoredSegment) -> _Known | None:
        with self._lock:
            known = self._known.get(segment.key)
        # A shorter one is another one: its bytes were deleted and sent again.
        return known if known is not None and known.end <= segment.size else None

    def _remember(self, key: SegmentKey, known: _Known) -> None:
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)


class _Window:
    """A file's header, then the file from an offset up to an end: what PcapReader can read on."""

    def __init__(self, reader: SegmentReader, begin: int, end: int) -> None:
        self._reader = reader
        self._header = reader.read_at(0, HEADER_BYTES)
        self._offset = begin
        self._end = end

    def read(self, count: int) -> bytes:
        start, self._header = self._header, b""
        data = self._reader.read_at(
            self._offset, max(0, min(count - len(start), self._end - self._offset))
        )
        self._offset += len(data)
        return start + data


def _read_on(
    reader: SegmentReader, known: _Known | None, size: int, *, count: bool, until: float
) -> _Known | None:
    """Read a segment from where reading ended to `size`, or as far as time allows.

    Args:
        reader: The segment.
        known: How far it was read.
        size: How far to read.
        count: Go to the end whatever it takes: what is whole has to be known.
        until: Else stop then (`time.monotonic`), after the first packet at the earliest.

    Returns:
        How far it was read now; None when there is not one whole packet.
    """
    begin = HEADER_BYTES if known is None else known.end
    records = PcapReader(cast(BinaryIO, _Window(reader, begin, size)))
    first_ns = last_ns = -1
    packets = 0
    is_late = False
    for record in records:
        packets += 1
        last_ns = record.time_ns
        if first_ns < 0:
            first_ns = last_ns
        if not count and packets % 1024 == 1 and time.monotonic() >= until:
            is_late = True
            break
    end = begin + records.end - HEADER_BYTES
    seen = end if is_late else size
    if known is not None:
        if not packets:
            return replace(known, seen=seen)
        return _Known(known.first_ns, last_ns, known.packets + packets, end, seen)
    return _Known(first_ns, last_ns, packets, end, seen) if packets else None


def _named(files: Iterable[CaptureFile]) -> list[CaptureFile]:
    """Give every file its name; of two that would share one the later is a microsecond later."""
    ordered = sorted(
        files,
        key=lambda f: (f.meta.pod, f.key.interface, f.first_ns, f.key.stream.pod_uid, f.key.seq),
    )
    taken: set[str] = set()
    named = []
    for file in ordered:
        first_us = file.first_ns // 1000
        name = str(FileName(file.meta.pod, file.key.interface, first_us))
        while name in taken:
            first_us += 1
            name = str(FileName(file.meta.pod, file.key.interface, first_us))
        taken.add(name)
        named.append(replace(file, name=name))
    return named
