"""The store as objects, as the collector writes it: any number of replicas, an append to any.

What a replica remembers (where a segment ends, how much a stream has) saves requests, and is
a guess: the create-only object at the offset decides. A guess is younger than the time for
which objects of a composed or deleted segment stay, so an append to one finds its place taken.
"""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from secrets import randbelow, token_hex
from typing import Final, TypeVar

import msgspec

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.store.base import (
    OffsetConflict,
    SegmentState,
    StoredSegment,
    StoreFailed,
    StoreFull,
    StreamMeta,
    Tally,
)
from retrieval.store.bucket import Bucket
from retrieval.store.healing import Ages, compose, heal_capture
from retrieval.store.layout import (
    SegmentObjects,
    StreamObjects,
    meta_path,
    part_path,
    read_streams,
    report_path,
    segment_folder,
)
from retrieval.store.objects import LOOK_SECONDS, ReadableObjects, listed

PACE_SECONDS: Final = 10.0
GUESS_SECONDS: Final = 30.0
TALLY_SECONDS: Final = 60.0
HEAL_SECONDS: Final = 300.0
_CHECK_SECONDS: Final = 5.0
_TRIES: Final = 8
_MAX_KNOWN: Final = 65536

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Guess:
    """Where a growing segment ended."""

    size: int
    at: float
    is_complete: bool = False


@dataclass(slots=True)
class _Stream:
    """What is known of a stream: its segments as of a look, and what was appended since."""

    looked_at: float
    segments: dict[SegmentKey, StoredSegment] = field(default_factory=dict)
    told: Tally | None = None

    @property
    def tally(self) -> Tally:
        return Tally(len(self.segments), sum(each.size for each in self.segments.values()))


class ObjectStore(ReadableObjects):
    """The store as the collector uses it; with any number of others."""

    pace_seconds: Final = PACE_SECONDS

    def __init__(
        self,
        bucket: Bucket,
        *,
        ages: Ages = Ages(),  # noqa: B008 - frozen
        tally_seconds: float = TALLY_SECONDS,
        heal_seconds: float = HEAL_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        super().__init__(bucket, look_seconds=look_seconds)
        self._ages = ages
        self._tally_seconds = tally_seconds
        self._heal_seconds = heal_seconds
        self._locks = tuple(threading.Lock() for _ in range(1024))
        self._guesses: OrderedDict[SegmentKey, _Guess] = OrderedDict()
        self._begun: OrderedDict[StreamKey, None] = OrderedDict()
        self._links: OrderedDict[tuple[StreamKey, str], int] = OrderedDict()
        self._streams: OrderedDict[StreamKey, _Stream] = OrderedDict()
        self._written_reports: OrderedDict[StreamKey, int] = OrderedDict()
        self._reported: dict[StreamKey, int] = {}
        self._known = threading.Lock()
        self._healed_at = float("-inf")
        self._fault: str | None = f"{bucket.url} has not answered yet"
        self._stopping = threading.Event()
        self._checking = threading.Thread(target=self._check_for_ever, name="check", daemon=True)

    @cached_property
    def _composers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(2, thread_name_prefix="compose")

    def fault(self) -> str | None:
        return self._fault

    def start(self) -> None:
        self._checking.start()

    def close(self) -> None:
        self._stopping.set()
        if self._checking.is_alive():
            self._checking.join()
        self._composers.shutdown(cancel_futures=True)
        self.pool.shutdown(cancel_futures=True)

    def _check_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                self.check()
            except (StoreFailed, StoreFull) as error:
                if self._fault != str(error):
                    _log.warning("store cannot be used yet", extra={"error": str(error)})
                self._fault = str(error)
                self._stopping.wait(_CHECK_SECONDS)
            else:
                self._fault = None
                return

    def check(self) -> None:
        """See that all rights are there, and that what exists is not created again.

        Raises:
            StoreFailed, StoreFull: it cannot be used.
        """
        path = f"check-{token_hex(8)}"
        is_new = self._bucket.create(path, b"1")
        is_new_again = self._bucket.create(path, b"2")
        self._bucket.get(path)
        list(self._bucket.folders(""))
        self._bucket.delete([path])
        if not is_new or is_new_again:
            raise StoreFailed(
                f"{self._bucket.url} overwrites an object that was to be created only if there is "
                "none (If-None-Match); segments would be damaged: use a store that has it"
            )

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
            for key in [k for k in self._guesses if k.stream.capture == capture]:
                del self._guesses[key]
            self._links.clear()
        with self._lock:
            self._looks.pop((namespace, capture), None)

    # segments

    def segment(self, key: SegmentKey) -> SegmentState:
        objects = self.objects_now(key)
        self._note(key, objects)
        return _state(objects)

    def append(self, key: SegmentKey, offset: int, body: bytes, *, complete: bool) -> SegmentState:
        segment_folder(key)
        with self._locks[hash(key) % len(self._locks)]:
            if not self._is_guessed(key, offset):
                state = self._admit(key, offset, body, complete=complete)
                if state is not None:
                    return state
            if not body and not (complete and offset):
                return SegmentState(offset, durable=offset)
            size = offset
            if body:
                if not self._bucket.create(part_path(key, offset), body):
                    return self._taken(key, offset, body, complete=complete)
                size += len(body)
                self._appended(key, size, len(body))
            if complete:
                self._end(key, size)
            return SegmentState(size, complete, size)

    def wait_durable(self, key: SegmentKey, size: int, timeout: float) -> int:
        """What was appended is durable already; so this waits for nothing."""
        with self._known:
            guess = self._guesses.get(key)
        return size if guess and guess.size >= size else min(size, self.segment(key).size)

    def _is_guessed(self, key: SegmentKey, size: int) -> bool:
        with self._known:
            guess = self._guesses.get(key)
        return (
            guess is not None
            and guess.size == size
            and not guess.is_complete
            and time.monotonic() - guess.at < GUESS_SECONDS
        )

    def _admit(
        self, key: SegmentKey, offset: int, body: bytes, *, complete: bool
    ) -> SegmentState | None:
        """Look whether an append fits; a state is the answer to one that needs nothing done.

        Raises:
            OffsetConflict: it does not fit.
        """
        objects = self.objects_now(key)
        self._note(key, objects)
        state = _state(objects)
        if objects.deleted is not None and offset >= state.size:
            # A person, or a ring, threw it away while it grew: so goes what is left of it.
            size = offset + len(body)
            return SegmentState(size, complete, size)
        if offset != state.size:
            return self._again(key, state, offset, body, complete=complete)
        if state.complete and (body or not complete):
            raise OffsetConflict(state)
        return state if state.complete else None

    def _again(
        self, key: SegmentKey, state: SegmentState, offset: int, body: bytes, *, complete: bool
    ) -> SegmentState:
        """Answer to what may have been kept although its sender was not told.

        Raises:
            OffsetConflict: other bytes are kept there.
        """
        if not body or offset >= state.size:
            raise OffsetConflict(state)
        try:
            with self.open(key) as reader:
                kept = reader.read_at(offset, len(body))
        except FileNotFoundError:
            raise OffsetConflict(state) from None
        if not kept or not body.startswith(kept):
            raise OffsetConflict(state)
        if complete and not state.complete and offset + len(body) == state.size:
            # Its bytes were kept, its end was not: whoever hears yes throws the segment away.
            self._end(key, state.size)
            return replace(state, complete=True)
        return state

    def _taken(self, key: SegmentKey, offset: int, body: bytes, *, complete: bool) -> SegmentState:
        """Answer to an append whose place was taken meanwhile: by itself, or by another."""
        objects = self.objects_now(key)
        self._note(key, objects)
        return self._again(key, _state(objects), offset, body, complete=complete)

    def _end(self, key: SegmentKey, size: int) -> None:
        """Say that nothing follows.

        Raises:
            OffsetConflict: something does.
        """
        if not self._bucket.create(part_path(key, size), b""):
            objects = self.objects_now(key)
            self._note(key, objects)
            if objects.extent != (size, True):
                raise OffsetConflict(_state(objects))
        self._remember(self._guesses, key, _Guess(size, time.monotonic(), is_complete=True))
        with self._known:
            stream = self._streams.get(key.stream)
            if stream is not None and key in stream.segments:
                stream.segments[key] = replace(stream.segments[key], complete=True)
        self.forget_look(key.stream)
        with contextlib.suppress(RuntimeError):  # closed: another one will
            self._composers.submit(self._compose, key)

    def _compose(self, key: SegmentKey) -> None:
        try:
            compose(self._bucket, key, self.objects_now(key))
        except (StoreFailed, StoreFull, FileNotFoundError) as error:
            _log.warning(
                "segment not composed, later", extra={"segment": key.path, "error": str(error)}
            )

    def _note(self, key: SegmentKey, objects: SegmentObjects) -> None:
        state = _state(objects)
        guess = _Guess(state.size, time.monotonic(), state.complete)
        self._remember(self._guesses, key, guess)

    def _appended(self, key: SegmentKey, size: int, added: int) -> None:
        now = time.time()
        self._remember(self._guesses, key, _Guess(size, time.monotonic()))
        with self._known:
            stream = self._streams.get(key.stream)
            if stream is not None:
                stream.segments[key] = StoredSegment(key, size, complete=False, modified_at=now)
        self.forget_look(key.stream)

    # what is stored of a stream

    def segments(self, stream: StreamKey) -> tuple[StoredSegment, ...]:
        found = self._stream(stream).segments.values()
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
        return tuple(key for key, tally in told.items() if self._stream(key).tally != tally)

    def delete_segment(self, key: SegmentKey) -> None:
        super().delete_segment(key)
        with self._known:
            self._guesses.pop(key, None)
            known = self._streams.get(key.stream)
            if known is not None:
                known.segments.pop(key, None)

    def objects(
        self,
        key: SegmentKey,
        max_age_seconds: float = 0.0,
    ) -> SegmentObjects:
        return self.objects_now(key)

    def _stream(self, stream: StreamKey) -> _Stream:
        now = time.monotonic()
        with self._known:
            known = self._streams.get(stream)
            if known is not None and now - known.looked_at < self._tally_seconds:
                return known
        objects = read_streams(self._bucket.list(f"{stream.path}/")).get(stream)
        return self._seen_anew(stream, objects or StreamObjects(), now)

    def _seen_anew(self, stream: StreamKey, objects: StreamObjects, at: float) -> _Stream:
        segments = {each.key: each for each in listed(objects)}
        with self._known:
            known = self._streams.setdefault(stream, _Stream(at))
            known.looked_at, known.segments = at, segments
            self._streams.move_to_end(stream)
            while len(self._streams) > _MAX_KNOWN:
                self._streams.popitem(last=False)
            return known

    def free_bytes(self) -> int | None:
        return None

    def heal(self) -> None:
        now = time.monotonic()
        if now - self._healed_at < self._heal_seconds:
            return
        reported = {}
        for namespace, capture in self.captures():
            begun = time.monotonic()
            streams = heal_capture(self._bucket, namespace, capture, time.time(), self._ages)
            for stream, objects in streams.items():
                if objects.latest_report is not None and objects.meta is not None:
                    reported[stream] = objects.latest_report
                with self._known:
                    known = self._streams.get(stream)
                if known is not None and known.looked_at < begun:
                    self._seen_anew(stream, objects, begun)
        self._reported = reported
        # Replicas that were started together are not to work on the same things for ever.
        self._healed_at = now + self._heal_seconds * (randbelow(100) - 50) / 200

    def _remember(self, known: OrderedDict[K, V], key: K, value: V) -> None:
        with self._known:
            known[key] = value
            known.move_to_end(key)
            while len(known) > _MAX_KNOWN:
                known.popitem(last=False)


def _state(objects: SegmentObjects) -> SegmentState:
    if objects.deleted_size is not None:
        return SegmentState(objects.deleted_size, complete=True, durable=objects.deleted_size)
    size, is_complete = objects.extent
    return SegmentState(size, is_complete, size)
