"""All pods of a capture as one pcapng file, in the order of time: as it is, or as it grows.

An interface block for each interface of a pod, names for the addresses of pods and
services, counters of drops at the end; while it grows, whenever they change.
"""

import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final

import nightcap
from nightcap.contract.segments import StreamKey
from nightcap.pcap import pcapng
from nightcap.pcap.merging import Merger, batch_bytes, merge
from nightcap.pcap.pcapng import Names, Section, Statistics
from retrieval.files.catalog import CaptureFile
from retrieval.files.packets import Filters, Numbering, Reading, StreamPackets, close_all
from retrieval.files.wanted import Wanted
from retrieval.store.base import ReadableStore, StreamMeta
from retrieval.stored_reports import StoredReport, load_stored

HOLD_SECONDS: Final = 0.5
"""How long packets of one pod wait for those of another. A sidecar ships once a second, so
that with this and the times below a packet is shown two seconds after the wire at most."""
LOOK_SECONDS: Final = 0.1
LIST_SECONDS: Final = 0.3
COUNTERS_SECONDS: Final = 2.0
SIGN_OF_LIFE_SECONDS: Final = 30.0
"""A reader that has gone without a word is found out by writing to it."""
SETTLE_SECONDS: Final = 10.0
"""How long after the end of a capture a pod that does not report may still bring packets."""
_PIECE_BYTES: Final = 2**18
_SLACK_NS: Final = 10**9
"""Stamps of packets in a file are in order but for less than this."""


@dataclass(frozen=True, slots=True)
class Title:
    """What the file says of itself."""

    namespace: str
    capture: str

    def section(self, wanted: Wanted) -> bytes:
        comment = f"packet capture {self.capture} of namespace {self.namespace}"
        if wanted.filter:
            comment += f", filtered by {wanted.filter}"
        return pcapng.pack_section(
            Section(application=f"nightcap {nightcap.__version__}", comments=(comment,))
        )


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is who: (address, name)."""

    services: tuple[tuple[str, str], ...] = ()

    def block(self, metas: Sequence[StreamMeta]) -> bytes:
        """A block with the names of services and of these pods; empty when there are none."""
        named: dict[str, list[str]] = {}
        pods = [(address, meta.pod) for meta in metas for address in meta.ips]
        for address, name in (*self.services, *pods):
            try:
                text = str(ipaddress.ip_address(address))
            except ValueError:
                continue  # a headless service has `None`
            if name not in named.setdefault(text, []):
                named[text].append(name)
        records = tuple((address, tuple(names)) for address, names in named.items())
        return pcapng.pack_names(Names(records)) if records else b""


# As it is.


def merged_pieces(
    store: ReadableStore,
    files: list[CaptureFile],
    wanted: Wanted,
    filters: Filters,
    title: Title,
    cast: Cast,
    stack: ExitStack,
) -> Iterator[bytes]:
    """The file as the capture's files are now.

    Args:
        store: Of the files.
        files: By pod, interface and time; all files of the capture, also of pods not wanted:
            they have names.
        wanted: Which packets.
        filters: Of the expression in `wanted`.
        title: Of the whole.
        cast: With the names of services.
        stack: Gets what is to be closed.

    Yields:
        Pieces; none at all when no packet is wanted.
    """
    chosen = wanted_files(files, wanted)
    grouped: dict[tuple[StreamKey, str], list[CaptureFile]] = {}
    for file in chosen:
        grouped.setdefault((file.key.stream, file.key.interface), []).append(file)
    reading = Reading(store, wanted, filters, batch_bytes(len(grouped)))
    streams = []
    for parts in grouped.values():
        stream = StreamPackets(reading, parts[0].meta)
        for file in sorted(parts, key=lambda each: each.key.seq):
            stream.offer(file.key, file.size)
        streams.append(stream)
    stack.callback(close_all, streams)
    start = title.section(wanted) + cast.block([file.meta for file in files])
    for blocks in merge(streams):
        yield from _pieces(start + reading.numbering.take_new() + b"".join(blocks))
        start = b""
    if not start:
        yield reading.numbering.take_new() + statistics(store, reading.numbering)


def wanted_files(files: list[CaptureFile], wanted: Wanted) -> list[CaptureFile]:
    """Files that can hold a wanted packet.

    Args:
        files: By pod, interface and time.
        wanted: Which packets.
    """
    chosen = []
    for file, after in zip_longest(files, files[1:]):
        ends_before = (
            wanted.from_ns is not None
            and after is not None
            and after.key.stream == file.key.stream
            and after.key.interface == file.key.interface
            and after.first_ns + _SLACK_NS < wanted.from_ns
        )
        begins_after = wanted.to_ns is not None and file.first_ns - _SLACK_NS >= wanted.to_ns
        if wanted.has_pod(file.meta.pod) and not ends_before and not begins_after:
            chosen.append(file)
    return chosen


def statistics(store: ReadableStore, numbering: Numbering) -> bytes:
    """Counters of the kernel and what is wrong with files, as far as it is known now."""
    blocks = []
    counted: set[StreamKey] = set()
    several = {
        interface.stream
        for interface in numbering.interfaces
        if sum(other.stream == interface.stream for other in numbering.interfaces) > 1
    }
    for interface in numbering.interfaces:
        stored = load_stored(store.report(interface.stream))
        if stored is None and not interface.statements:
            continue
        comments = list(interface.statements)
        received = dropped = None
        at = 0.0
        if stored is not None:
            at = stored.report.at
            if interface.stream not in counted:
                received, dropped = stored.report.received, stored.report.dropped
                if interface.stream in several:
                    comments.append("counters are of all interfaces of this pod together")
            own = interface.described.name.rpartition(":")[2]
            gaps = stored.report.lost.gaps
            comments += [gap.sentence for gap in gaps if gap.interface == own]
        counted.add(interface.stream)
        blocks.append(
            pcapng.pack_statistics(
                Statistics(
                    interface=interface.number,
                    time_ns=min(int(at * 10**9), 2**64 - 1),
                    received=received,
                    dropped=dropped,
                    comments=tuple(comments),
                ),
                interface.described,
            )
        )
    return b"".join(blocks)


def _pieces(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), _PIECE_BYTES):
        yield data[begin : begin + _PIECE_BYTES]


# As it grows.


@dataclass(frozen=True, slots=True)
class Outside:
    """What a live answer asks of the world; functions, so that it knows no more.

    Attributes:
        is_allowed: Whether the reader may go on: the right and the capture are still there.
        is_over: Whether the capture records no more.
        has_left: Whether the reader has gone.
    """

    is_allowed: Callable[[], bool]
    is_over: Callable[[], bool]
    has_left: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class _Due:
    """When something was done last; it is due each so many seconds."""

    every_seconds: float
    at: float = float("-inf")

    def now(self, now: float) -> bool:
        if now - self.at < self.every_seconds:
            return False
        self.at = now
        return True


@dataclass(slots=True)
class Live:
    """One live answer: its streams, and what has been written."""

    store: ReadableStore
    namespace: str
    capture_uid: str
    wanted: Wanted
    filters: Filters
    title: Title
    cast: Cast
    outside: Outside
    stack: ExitStack
    _merger: Merger = field(default_factory=lambda: Merger(HOLD_SECONDS))
    _streams: dict[tuple[StreamKey, str], StreamPackets] = field(default_factory=dict)
    _pods: dict[StreamKey, StreamMeta] = field(default_factory=dict)
    _news: list[bytes] = field(default_factory=list)
    _counters: bytes = b""
    _counted: tuple[tuple[int, int, int], ...] = ()

    def pieces(self) -> Iterator[bytes]:
        """Pieces as packets come, until the capture is over or the reader has gone."""
        outside = self.outside
        self.stack.callback(lambda: close_all(list(self._streams.values())))
        reading = Reading(self.store, self.wanted, self.filters, batch_bytes(1))
        listing = _Due(max(LIST_SECONDS, self.store.look_seconds))
        counters = _Due(COUNTERS_SECONDS)
        written_at = fresh_at = outside.clock()
        self._list(reading, float("-inf"))
        listing.now(written_at)
        start = self.title.section(self.wanted) + self.cast.block(list(self._pods.values()))
        self._news.clear()
        yield start
        while not outside.has_left():
            now = outside.clock()
            if listing.now(now):
                self._list(reading, now)
            blocks = self._merger.next(now)
            data = b"".join(self._news) + reading.numbering.take_new() + b"".join(blocks)
            self._news.clear()
            # Asked by the clock, also while packets come without a pause: a right that was taken
            # away ends the answer.
            due = counters.now(now)
            if due and not outside.is_allowed():
                return
            if blocks:
                fresh_at = now
            elif due:
                data += self._new_counters(reading.numbering)
                if not data and now - written_at >= SIGN_OF_LIFE_SECONDS:
                    data = self._counters or pcapng.pack_names(Names(()))
                if self._is_over(now - fresh_at):
                    yield from _pieces(data + statistics(self.store, reading.numbering))
                    return
            if data:
                written_at = now
                yield from _pieces(data)
            if not blocks:
                outside.sleep(LOOK_SECONDS)

    def _list(self, reading: Reading, since: float) -> None:
        """Look for pods and files that have come, after `since`, or gone."""
        for pod in self.store.streams(self.namespace, self.capture_uid):
            meta = self._meta(pod)
            if meta is None:
                continue
            if not self.wanted.has_pod(meta.pod):
                continue
            present: dict[str, set[int]] = {}
            for segment in self.store.segments(pod):
                interface = segment.key.interface
                stream = self._streams.get((pod, interface))
                if stream is None:
                    stream = self._streams[pod, interface] = StreamPackets(reading, meta)
                    self._merger.add(stream, since)
                    reading.batch_bytes = batch_bytes(len(self._streams))
                stream.offer(segment.key, segment.size if segment.complete else None)
                present.setdefault(interface, set()).add(segment.key.seq)
            for (owner, interface), stream in self._streams.items():
                if owner == pod:
                    stream.gone(present.get(interface, set()))

    def _meta(self, pod: StreamKey) -> StreamMeta | None:
        """What is known of a pod, which is told as soon as it has an address: one that was born
        into the capture has none yet when its first packets are there.
        """
        meta = self._pods.get(pod)
        if meta is None or not meta.ips:
            meta = self.store.meta(pod)
            if meta is not None:
                self._pods[pod] = meta
                self._news.append(Cast().block([meta]))
        return meta

    def _new_counters(self, numbering: Numbering) -> bytes:
        """Counters, when they are not those that were written last."""
        reports = [load_stored(self.store.report(i.stream)) for i in numbering.interfaces]
        counted = tuple(
            (
                stored.report.dropped if stored else -1,
                stored.report.lost.bytes if stored else -1,
                len(interface.statements),
            )
            for interface, stored in zip(numbering.interfaces, reports, strict=True)
        )
        self._counters = statistics(self.store, numbering)
        if counted == self._counted:
            return b""
        self._counted = counted
        return self._counters

    def _is_over(self, quiet_seconds: float) -> bool:
        if not (self._merger.is_empty and self.outside.is_over()):
            return False
        return quiet_seconds >= SETTLE_SECONDS or all(
            _is_shipped(load_stored(self.store.report(pod))) for pod in self._pods
        )


def _is_shipped(stored: StoredReport | None) -> bool:
    return stored is not None and stored.report.shipped
