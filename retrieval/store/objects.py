"""The store as objects, to read: any number of processes, none of which remembers anything.

A look at a capture lists all of its objects, a thousand a request; what is asked of its
streams right after that is answered from it. A reader fetches ahead, more when it reads on
and on, and all readers together hold a bounded amount.
"""

import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec

from nightcap.contract.segments import BadName, SegmentKey, StreamKey
from retrieval.store.base import SegmentReader, StoredSegment, StreamMeta
from retrieval.store.bucket import Bucket
from retrieval.store.layout import (
    SegmentObjects,
    StreamObjects,
    deleted_path,
    meta_path,
    part_path,
    read_segment,
    read_streams,
    report_path,
    segment_folder,
    whole_path,
)

LOOK_SECONDS: Final = 2.0
SAME_LOOK_SECONDS: Final = 5.0
"""How long after a look its streams are answered from it."""
WINDOW_BYTES: Final = 4 * 2**20
AHEAD_BYTES: Final = 64 * 2**20
"""What all readers of a process hold together, about."""
_LEAST_WINDOW: Final = 2**16
_MAX_LOOKS: Final = 8
_MAX_KNOWN: Final = 16384
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    streams: Mapping[StreamKey, StreamObjects]


class ReadableObjects:
    """The store as the files program uses it."""

    def __init__(self, bucket: Bucket, *, look_seconds: float = LOOK_SECONDS) -> None:
        self.look_seconds = look_seconds
        self._bucket = bucket
        self._looks: OrderedDict[tuple[str, str], _Look] = OrderedDict()
        self._metas: OrderedDict[StreamKey, tuple[str | None, StreamMeta]] = OrderedDict()
        self._reports: OrderedDict[StreamKey, tuple[int, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._readers = 0

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """For what is fetched at once; made after a fork."""
        return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="objects")

    @property
    def bucket(self) -> Bucket:
        return self._bucket

    def captures(self) -> Iterator[tuple[str, str]]:
        for namespace in self._bucket.folders(""):
            for capture in self._bucket.folders(f"{namespace}/"):
                try:
                    StreamKey(namespace, capture, "0")
                except BadName:
                    continue
                yield namespace, capture

    def streams(self, namespace: str, capture: str) -> tuple[StreamKey, ...]:
        StreamKey(namespace, capture, "0")
        look = self._take_look(namespace, capture)
        return tuple(sorted(look.streams, key=lambda stream: stream.pod_uid))

    def segments(self, stream: StreamKey) -> tuple[StoredSegment, ...]:
        return listed(self._seen(stream))

    def meta(self, stream: StreamKey) -> StreamMeta | None:
        found = self._seen(stream).meta
        if found is None:
            return None
        with self._lock:
            known = self._metas.get(stream)
        if known is not None and known[0] == found.e_tag and found.e_tag:
            return known[1]
        meta = self.read_meta(stream)
        if meta is not None:
            with self._lock:
                self._metas[stream] = (found.e_tag, meta)
                _trim(self._metas)
        return meta

    def read_meta(self, stream: StreamKey) -> StreamMeta | None:
        """A stream's meta as it is at this moment."""
        try:
            return msgspec.json.decode(self._bucket.get(meta_path(stream))[0], type=StreamMeta)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def report(self, stream: StreamKey) -> bytes | None:
        for objects in (self._seen(stream), None):
            # It is not there any more when a newer one is: look once more.
            fresh = objects or read_streams(self._bucket.list(f"{stream.path}/")).get(stream)
            latest = fresh.latest_report if fresh is not None else None
            if latest is None:
                return None
            with self._lock:
                known = self._reports.get(stream)
            if known is not None and known[0] == latest:
                return known[1]
            try:
                text, _ = self._bucket.get(report_path(stream, latest))
            except FileNotFoundError:
                continue
            with self._lock:
                self._reports[stream] = (latest, text)
                _trim(self._reports)
            return text
        return None

    def open(self, key: SegmentKey) -> "ObjectReader":
        objects = self.objects(key)
        if objects.deleted is not None or not objects.all():
            raise FileNotFoundError(f"no segment {key.path}")
        return ObjectReader(self, key, objects)

    def delete_segment(self, key: SegmentKey) -> None:
        """Mark a segment as deleted; its bytes go when no answer can need them any more."""
        objects = read_segment(self._bucket.list(segment_folder(key)))
        if objects.deleted is None and objects.all():
            self._bucket.create(deleted_path(key, objects.extent[0]), b"")
        self.forget_look(key.stream)

    def objects(
        self, key: SegmentKey, max_age_seconds: float = SAME_LOOK_SECONDS
    ) -> SegmentObjects:
        """The objects of a segment, as of a moment ago."""
        segment_folder(key)
        return self._seen(key.stream, max_age_seconds).segments.get(key, SegmentObjects())

    def objects_now(self, key: SegmentKey) -> SegmentObjects:
        """The objects of a segment as of now."""
        return read_segment(self._bucket.list(segment_folder(key)))

    def forget_look(self, stream: StreamKey) -> None:
        """What was seen of a stream's capture holds no longer."""
        with self._lock:
            self._looks.pop((stream.namespace, stream.capture), None)

    def count_readers(self, change: int) -> int:
        """How many readers hold something, at least 1, after a change."""
        with self._lock:
            self._readers += change
            return max(1, self._readers)

    def _seen(self, stream: StreamKey, max_age_seconds: float = SAME_LOOK_SECONDS) -> StreamObjects:
        with self._lock:
            look = self._looks.get((stream.namespace, stream.capture))
        if look is None or time.monotonic() - look.at > max_age_seconds:
            look = self._take_look(stream.namespace, stream.capture)
        return look.streams.get(stream) or StreamObjects()

    def _take_look(self, namespace: str, capture: str) -> _Look:
        begun = time.monotonic()
        look = _Look(begun, read_streams(self._bucket.list(f"{namespace}/{capture}/")))
        with self._lock:
            self._looks[namespace, capture] = look
            self._looks.move_to_end((namespace, capture))
            while len(self._looks) > _MAX_LOOKS:
                self._looks.popitem(last=False)
        return look


def listed(objects: StreamObjects) -> tuple[StoredSegment, ...]:
    """A stream's segments by interface and number, those that were deleted left out."""
    found = []
    for key, each in objects.segments.items():
        size, is_complete = each.extent
        if size and each.deleted is None:
            found.append(StoredSegment(key, size, is_complete, each.changed_at))
    return tuple(sorted(found, key=lambda s: (s.key.interface, s.key.seq)))


class ObjectReader(SegmentReader):
    """A segment, whole or in parts; it goes on in the whole when parts were composed meanwhile."""

    def __init__(self, store: ReadableObjects, key: SegmentKey, objects: SegmentObjects) -> None:
        self._store = store
        self._key = key
        self._begin, self._ahead = 0, b""
        self._next = -1
        self._window = _LEAST_WINDOW
        self._take(objects)

    def _take(self, objects: SegmentObjects) -> None:
        self._looked_at = time.monotonic()
        self._is_whole = objects.whole is not None
        self._size, self._is_complete = objects.extent
        self._offsets = [at for at, _ in objects.chain()]

    def read_at(self, offset: int, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._piece(offset + len(data), count - len(data))
            if not piece:
                break
            data = data + piece if data else piece
        return data

    def _piece(self, offset: int, count: int) -> bytes:
        start = offset - self._begin
        if not 0 <= start < len(self._ahead):
            self._fill(offset, count)
            start = 0
        piece = self._ahead[start : start + count]
        if self._begin + start + len(piece) >= self._size and self._is_complete:
            self._hold(0, b"")  # nothing follows: let it go while others are read
        return piece

    def _fill(self, offset: int, count: int) -> None:
        if offset >= self._size and not self._is_complete:
            age = time.monotonic() - self._looked_at
            if age >= self._store.look_seconds:
                self._take_or_stay(self._store.objects(self._key, self._store.look_seconds))
        if offset >= self._size:
            self._hold(offset, b"")
            return
        # Twice as much each time while reading goes on where it ended.
        self._window = (
            min(WINDOW_BYTES, self._window * 2) if offset == self._next else _LEAST_WINDOW
        )
        share = AHEAD_BYTES // self._store.count_readers(0)
        end = min(self._size, offset + max(count, min(self._window, share)))
        try:
            data = self._fetch(offset, end)
        except FileNotFoundError:
            self._take_or_stay(self._store.objects_now(self._key))
            try:
                data = self._fetch(offset, min(end, self._size))
            except FileNotFoundError:
                data = b""  # deleted, and the time is over in which it could still be read
        self._next = offset + len(data)
        self._hold(offset, data)

    def _take_or_stay(self, objects: SegmentObjects) -> None:
        """Take over what is there now, unless that is less: what was there stays readable."""
        self._looked_at = time.monotonic()
        if objects.extent[0] >= self._size or objects.whole is not None:
            self._take(objects)

    def _fetch(self, begin: int, end: int) -> bytes:
        bucket = self._store.bucket
        if self._is_whole:
            return bucket.read(whole_path(self._key), begin, end)
        first = bisect_right(self._offsets, begin) - 1
        wanted = []
        for at, after in zip(
            self._offsets[first:], [*self._offsets[first + 1 :], self._size], strict=True
        ):
            if at >= end:
                break
            wanted.append((at, max(begin, at) - at, min(end, after) - at))
        if len(wanted) == 1:
            at, start, stop = wanted[0]
            return bucket.read(part_path(self._key, at), start, stop)
        return b"".join(
            self._store.pool.map(
                lambda w: bucket.read(part_path(self._key, w[0]), w[1], w[2]), wanted
            )
        )

    def _hold(self, begin: int, data: bytes) -> None:
        self._store.count_readers(bool(data) - bool(self._ahead))
        self._begin, self._ahead = begin, data

    def close(self) -> None:
        self._hold(0, b"")


def _trim(
    known: OrderedDict[StreamKey, tuple[str | None, StreamMeta]]
    | OrderedDict[StreamKey, tuple[int, bytes]],
) -> None:
    while len(known) > _MAX_KNOWN:
        known.popitem(last=False)
