"""Streams as objects: their yes, their reports, and how much is stored of each.

What a replica remembers of a stream is a minute old at most, its own appends apart; others may
have appended meanwhile.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from secrets import randbelow
from typing import Final, TypeVar

import msgspec

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.store.base import StoredSegment, StoreFailed, StreamMeta, Tally
from retrieval.store.bucket import Bucket
from retrieval.store.healing import Ages, heal_capture
from retrieval.store.layout import StreamObjects, meta_path, read_streams, report_path
from retrieval.store.objects import LOOK_SECONDS, ReadableObjects, listed

MAX_KNOWN: Final = 65536
_TRIES: Final = 8

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Times:
    """How long what a replica knows is good, in seconds.

    Attributes:
        tally_seconds: How much is stored of a stream, when others may have appended to it.
        heal_seconds: That nobody has left anything unfinished.
        look_seconds: What is stored of a capture, for whoever watches it.
        ages: How old things have to be before they are healed.
    """

    tally_seconds: float = 60.0
    heal_seconds: float = 300.0
    look_seconds: float = LOOK_SECONDS
    ages: Ages = field(default_factory=Ages)


@dataclass(slots=True)
class _Stream:
    """What is known of a stream: its segments as of a look, and what was appended since."""

    looked_at: float
    segments: dict[SegmentKey, StoredSegment] = field(default_factory=dict)
    told: Tally | None = None

    @property
    def tally(self) -> Tally:
        return Tally(len(self.segments), sum(each.size for each in self.segments.values()))


class ObjectStreams(ReadableObjects):
    """All of the store but the segments' bytes."""

    def __init__(
        self,
        bucket: Bucket,
        times: Times = Times(),
    ) -> None:
        super().__init__(bucket, look_seconds=times.look_seconds)
        self._times = times
        self._begun: OrderedDict[StreamKey, None] = OrderedDict()
        self._links: OrderedDict[tuple[StreamKey, str], int] = OrderedDict()
        self._streams: OrderedDict[StreamKey, _Stream] = OrderedDict()
        self._written_reports: OrderedDict[StreamKey, int] = OrderedDict()
        self._reported: dict[StreamKey, int] = {}
        self._known = threading.Lock()
        self._healed_at = float("-inf")

    # streams

    def has_stream(self, stream: StreamKey) -> bool:
        with self._known:
            if stream in self._begun:
                return True
        has = self.read_meta(stream) is not None
        if has:
            self._remember(self._begun, stream, None)
        return has

    def create_stream(self, stream: StreamKey, meta: StreamMeta) -> None:
        self._bucket.create(meta_path(stream), msgspec.json.encode(meta))
        self._remember(self._begun, stream, None)

    def set_link(self, key: SegmentKey, link_type: int) -> None:
        with self._known:
            if self._links.get((key.stream, key.interface)) == link_type:
                return

        def add_link(meta: StreamMeta) -> StreamMeta:
            return replace(meta, links=meta.links | {key.interface: link_type})

        self._change_meta(key.stream, add_link)
        self._remember(self._links, (key.stream, key.interface), link_type)

    def set_addresses(self, stream: StreamKey, ips: tuple[str, ...]) -> None:
        self._change_meta(stream, lambda meta: replace(meta, ips=ips))

    def _change_meta(self, stream: StreamKey, change: Callable[[StreamMeta], StreamMeta]) -> None:
        for _ in range(_TRIES):
            try:
                text, version = self._bucket.get(meta_path(stream))
            except FileNotFoundError:
                return
            meta = msgspec.json.decode(text, type=StreamMeta)
            changed = change(meta)
            if changed == meta:
                return
            if self._bucket.replace(meta_path(stream), msgspec.json.encode(changed), version):
                return
        raise StoreFailed(f"{meta_path(stream)} is changed by others all the time; try again")

    def meta(self, stream: StreamKey) -> StreamMeta | None:
        return self.read_meta(stream)

    def report(self, stream: StreamKey) -> bytes | None:
        self.forget_look(stream)
        return super().report(stream)

    def write_report(self, stream: StreamKey, text: bytes, seq: int) -> None:
        self._bucket.create(report_path(stream, seq), text)
        with self._known:
            before = self._written_reports.get(stream)
        self._remember(self._written_reports, stream, seq)
        if before is not None and before < seq:
            with contextlib.suppress(StoreFailed):  # who heals finds it as well
                self._bucket.delete([report_path(stream, before)])

    def reported(self) -> Mapping[StreamKey, int]:
        return dict(self._reported)

    def delete_capture(self, namespace: str, capture: str) -> None:
        StreamKey(namespace, capture, "0")
        paths = [found.path for found in self._bucket.list(f"{namespace}/{capture}/")]
        self._bucket.delete(paths)
        with self._known:
            for known in (self._begun, self._streams, self._written_reports, self._reported):
                for stream in [
                    s for s in known if (s.namespace, s.capture) == (namespace, capture)
                ]:
                    del known[stream]
            self._links.clear()
        with self._lock:
            self._looks.pop((namespace, capture), None)

    # what is stored of a stream

    def segments(self, stream: StreamKey) -> tuple[StoredSegment, ...]:
        known = self._stream(stream)
        with self._known:
            found = tuple(known.segments.values())
        return tuple(sorted(found, key=lambda s: (s.key.interface, s.key.seq)))

    def tally(self, stream: StreamKey) -> Tally:
        known = self._stream(stream)
        with self._known:
            known.told = known.tally
            return known.told

    def recount(self) -> tuple[StreamKey, ...]:
        """Look anew at streams that were not looked at for a while.

        Returns:
            The streams of which less or more is there than was told.
        """
        with self._known:
            told = {key: known.told for key, known in self._streams.items() if known.told}
        changed = []
        for stream, tally in told.items():
            known = self._stream(stream)
            with self._known:
                if known.tally != tally:
                    changed.append(stream)
        return tuple(changed)

    def delete_segment(self, key: SegmentKey) -> None:
        super().delete_segment(key)
        with self._known:
            known = self._streams.get(key.stream)
            if known is not None:
                known.segments.pop(key, None)

    def _note_segment(self, key: SegmentKey, size: int, *, complete: bool) -> None:
        """A segment is so long now, by our own doing."""
        with self._known:
            known = self._streams.get(key.stream)
            if known is not None:
                known.segments[key] = StoredSegment(key, size, complete, time.time())
        self.forget_look(key.stream)

    def _stream(self, stream: StreamKey) -> _Stream:
        begun, now = time.time(), time.monotonic()
        with self._known:
            known = self._streams.get(stream)
            if known is not None and now - known.looked_at < self._times.tally_seconds:
                return known
        objects = read_streams(self._bucket.list(f"{stream.path}/")).get(stream)
        return self._seen_anew(stream, objects or StreamObjects(), now, begun)

    def _seen_anew(
        self, stream: StreamKey, objects: StreamObjects, at: float, begun: float
    ) -> _Stream:
        segments = {each.key: each for each in listed(objects)}
        with self._known:
            known = self._streams.setdefault(stream, _Stream(at))
            # What we appended while the list was made may not be in it.
            segments |= {k: s for k, s in known.segments.items() if s.modified_at >= begun}
            known.looked_at, known.segments = at, segments
            self._streams.move_to_end(stream)
            while len(self._streams) > MAX_KNOWN:
                self._streams.popitem(last=False)
            return known

    def heal(self) -> None:
        due_at = time.monotonic()
        if due_at - self._healed_at < self._times.heal_seconds:
            return
        reported = {}
        for namespace, capture in self.captures():
            begun, now = time.monotonic(), time.time()
            streams = heal_capture(self._bucket, namespace, capture, now, self._times.ages)
            for stream, objects in streams.items():
                if objects.latest_report is not None and objects.meta is not None:
                    reported[stream] = objects.latest_report
                with self._known:
                    known = self._streams.get(stream)
                if known is not None and known.looked_at < begun:
                    self._seen_anew(stream, objects, begun, now)
        self._reported = reported
        # Replicas that were started together are not to work on the same things for ever.
        self._healed_at = due_at + self._times.heal_seconds * (randbelow(100) - 50) / 200

    def _remember(self, known: OrderedDict[K, V], key: K, value: V) -> None:
        with self._known:
            known[key] = value
            known.move_to_end(key)
            while len(known) > MAX_KNOWN:
                known.popitem(last=False)
