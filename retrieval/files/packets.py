"""Packets out of the store as blocks of one pcapng section, stream by stream.

A stream is an interface of a pod: its segments are read one after the other, each as far
as there are whole records. Segments may grow meanwhile, and new ones may come.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from nightcap.contract.segments import SegmentKey, StreamKey
from nightcap.pcap import pcapng
from nightcap.pcap.bounded import Undecided
from nightcap.pcap.formats import (
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    RECORD_HEADER_BYTES,
    Header,
    NotPcap,
    parse_header,
    record_boundary,
)
from nightcap.pcap.libpcap import PcapError
from nightcap.pcap.offline import OfflineFilter
from nightcap.pcap.pcapng import Interface
from nightcap.pcap.rewriting import Batch, rewrite
from retrieval.files.wanted import Wanted
from retrieval.store.base import ReadableStore, SegmentReader, StreamMeta

_MAX_RECORD: Final = RECORD_HEADER_BYTES + MAX_RECORD_BYTES


class Filters:
    """One expression, compiled for each link type when packets of it come."""

    def __init__(self, expression: str, check: Callable[[str, int], str | None]) -> None:
        """Compile nothing yet.

        Args:
            expression: Empty for every packet.
            check: Says why an expression does not compile for a link type, if it does not;
                somewhere else, as it may take all time and memory.
        """
        self._expression = expression
        self._check = check
        self._compiled: dict[int, OfflineFilter] = {}

    def fault(self, linktype: int) -> str | None:
        """Why packets of a link type cannot be filtered, if they cannot.

        Raises:
            Undecided: nobody knows, as this machine is too busy to find out.
        """
        if not self._expression or linktype in self._compiled:
            return None
        fault = self._check(self._expression, linktype)
        if fault is None:
            try:
                self._compiled[linktype] = OfflineFilter(self._expression, linktype)
            except PcapError as error:
                fault = str(error)
        return fault

    def of(self, linktype: int) -> OfflineFilter | None:
        """The filter for a link type in which no fault was found; None for every packet."""
        return self._compiled.get(linktype)

    def close(self) -> None:
        for each in self._compiled.values():
            each.close()
        self._compiled.clear()


@dataclass(slots=True)
class PodInterface:
    """One interface of the section.

    Attributes:
        statements: What is wrong with the files, for people.
    """

    number: int
    stream: StreamKey
    described: Interface
    statements: list[str] = field(default_factory=list)


class Numbering:
    """The section's interfaces: one for each interface of a pod, and link type of its files."""

    def __init__(self) -> None:
        self.interfaces: list[PodInterface] = []
        self._known: dict[tuple[StreamKey, str, int], PodInterface] = {}
        self._new: list[bytes] = []

    def interface(self, key: SegmentKey, meta: StreamMeta, header: Header) -> PodInterface:
        """The interface that a file's packets are of."""
        identity = (key.stream, key.interface, header.linktype)
        known = self._known.get(identity)
        if known is None:
            described = Interface(
                linktype=header.linktype,
                snaplen=min(header.snaplen, MAX_RECORD_BYTES) or MAX_RECORD_BYTES,
                name=f"{meta.pod}:{key.interface}",
                description=f"{key.interface} of pod {meta.pod} on node {meta.node}",
                comments=(f"pod uid {key.stream.pod_uid}",),
            )
            known = PodInterface(len(self.interfaces), key.stream, described)
            self._known[identity] = known
            self.interfaces.append(known)
            self._new.append(pcapng.pack_interface(described))
        return known

    def take_new(self) -> bytes:
        """Blocks of interfaces that were not written yet; they come before their packets."""
        new, self._new = b"".join(self._new), []
        return new


@dataclass(slots=True)
class Reading:
    """What all streams of one answer share.

    Attributes:
        batch_bytes: How much of a stream is read at a time.
    """

    store: ReadableStore
    wanted: Wanted
    filters: Filters
    batch_bytes: int
    numbering: Numbering = field(default_factory=Numbering)


@dataclass(slots=True)
class _Segment:
    """A segment and how far it was read.

    Attributes:
        end: Its size when that is final; None while it may grow.
    """

    key: SegmentKey
    end: int | None
    offset: int = HEADER_BYTES
    reader: SegmentReader | None = None
    header: Header | None = None
    interface: PodInterface | None = None
    is_over: bool = False

    def close(self) -> None:
        self.is_over = True
        if self.reader is not None:
            self.reader.close()
            self.reader = None


class StreamPackets:
    """Packets of one interface of one pod: what a `nightcap.pcap.merging.Merger` merges."""

    def __init__(self, reading: Reading, meta: StreamMeta) -> None:
        self._reading = reading
        self._meta = meta
        self._segments: dict[int, _Segment] = {}
        self._more = True

    @property
    def more(self) -> bool:
        return self._more

    def offer(self, key: SegmentKey, end: int | None) -> None:
        """Say that a segment is there, and its size when it grows no more."""
        known = self._segments.get(key.seq)
        if known is None:
            self._segments[key.seq] = _Segment(key, end)
            if len(self._segments) > 1 and key.seq < max(self._segments):
                self._segments = dict(sorted(self._segments.items()))
        else:
            known.end = end

    def gone(self, present: set[int]) -> None:
        """Say which segments there are; others were deleted, and are read if they are open."""
        for seq in [seq for seq in self._segments if seq not in present]:
            segment = self._segments[seq]
            if segment.is_over or segment.reader is None:
                segment.close()
                del self._segments[seq]
            elif segment.end is None:
                segment.end = 2**62  # whatever is there is all

    def read(self) -> Batch | None:
        for segment in tuple(self._segments.values()):
            while not segment.is_over:
                batch = self._read(segment)
                if batch is None:
                    break
                if batch.times:
                    self._more = self._more or segment is not self._last()
                    return batch
        self._more = False
        return None

    def _last(self) -> _Segment:
        return self._segments[next(reversed(self._segments))]

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()

    def _read(self, segment: _Segment) -> Batch | None:
        """The next packets of a segment, perhaps none of them wanted; None when none is whole."""
        if not self._open(segment):
            return None
        # For the type checker's eyes: an open segment has all three.
        if segment.reader is None or segment.header is None or segment.interface is None:
            return None
        limit = 2**62 if segment.end is None else segment.end
        for count in (self._reading.batch_bytes, _MAX_RECORD):
            asked = max(0, min(count, limit - segment.offset))
            data = segment.reader.read_at(segment.offset, asked)
            self._more = len(data) == asked
            batch = self._packets(segment.interface.number, segment.header, data)
            segment.offset += batch.end
            if batch.damage:
                self._end(segment, f"{batch.damage} at byte {segment.offset}")
                return batch
            if batch.end:
                return batch
            if len(data) < asked:
                break
        if len(data) >= _MAX_RECORD:
            self._end(segment, f"no record at byte {segment.offset}")
        elif segment.end is not None:
            self._end(segment, f"record at byte {segment.offset} is cut off" if data else "")
        return None

    def _packets(self, number: int, header: Header, data: bytes) -> Batch:
        chosen = self._reading.filters.of(header.linktype)
        if chosen is None:
            batch = rewrite(data, header, number)
        else:
            end = record_boundary(data, header.byte_order)
            try:
                kept = chosen.keep(data[:end], header) if end else b""
            except PcapError as error:
                return Batch([], [], 0, f"no record that libpcap reads ({error})")
            native = Header(header.linktype, header.snaplen, header.nanoseconds)
            batch = rewrite(kept, native, number)._replace(end=end)
        return self._in_time(batch)

    def _in_time(self, batch: Batch) -> Batch:
        wanted = self._reading.wanted
        if not batch.times or (
            wanted.has_time(min(batch.times)) and wanted.has_time(max(batch.times))
        ):
            return batch
        chosen = [index for index, ns in enumerate(batch.times) if wanted.has_time(ns)]
        return batch._replace(
            times=[batch.times[index] for index in chosen],
            blocks=[batch.blocks[index] for index in chosen],
        )

    def _open(self, segment: _Segment) -> bool:
        """Have a segment open and its header read; False when that cannot be, or not yet."""
        if segment.header is not None:
            return True
        if segment.reader is None:
            try:
                segment.reader = self._reading.store.open(segment.key)
            except FileNotFoundError:
                segment.close()  # deleted meanwhile
                return False
        start = segment.reader.read_at(0, HEADER_BYTES)
        if len(start) < HEADER_BYTES:
            if segment.end is not None:
                segment.close()
            return False
        try:
            header = parse_header(start)
        except NotPcap:
            segment.close()  # the collector takes none such
            return False
        segment.interface = self._reading.numbering.interface(segment.key, self._meta, header)
        segment.header = header
        try:
            fault = self._reading.filters.fault(header.linktype)
        except Undecided as error:
            self._end(segment, f"left out, as the filter {error}, or this machine was busy")
            return False
        if fault is not None:
            self._end(segment, f"left out, as the filter does not fit its packets: {fault}")
            return False
        return True

    def _end(self, segment: _Segment, statement: str) -> None:
        segment.close()
        if statement and segment.interface is not None:
            said = segment.interface.statements
            if len(said) < 100:
                said.append(f"file {segment.key.seq} of {segment.key.interface}: {statement}")


def close_all(streams: list[StreamPackets]) -> None:
    """Let go of all files."""
    for stream in streams:
        with suppress(OSError):
            stream.close()
