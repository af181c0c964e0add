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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from secrets import token_hex
from typing import Final

from nightcap.contract.segments import SegmentKey
from retrieval.store.base import (
    Bytes,
    OffsetConflict,
    SegmentState,
    StoreFailed,
    StoreFull,
)
from retrieval.store.bucket import Bucket
from retrieval.store.healing import compose
from retrieval.store.layout import (
    SegmentObjects,
    part_path,
    segment_folder,
)
from retrieval.store.object_streams import ObjectStreams, Times

PACE_SECONDS: Final = 10.0
GUESS_SECONDS: Final = 30.0
MAX_LARGE_PUTS: Final = 16
"""At once: on a slow line sixty would all take longer than anybody waits, and be sent again."""
LARGE_BYTES: Final = 2**18
SLOT_SECONDS: Final = 4.0
_CHECK_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Guess:
    """Where a growing segment ended."""

    size: int
    at: float
    is_complete: bool = False


class ObjectStore(ObjectStreams):
    """The store as the collector uses it; with any number of others."""

    pace_seconds: Final = PACE_SECONDS

    def __init__(
        self,
        bucket: Bucket,
        times: Times = Times(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(bucket, times)
        self._locks = tuple(threading.Lock() for _ in range(1024))
        self._guesses: OrderedDict[SegmentKey, _Guess] = OrderedDict()
        self._slots = threading.BoundedSemaphore(MAX_LARGE_PUTS)
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

    def delete_capture(self, namespace: str, capture: str) -> None:
        super().delete_capture(namespace, capture)
        with self._known:
            for key in [k for k in self._guesses if k.stream.capture == capture]:
                del self._guesses[key]

    def delete_segment(self, key: SegmentKey) -> None:
        super().delete_segment(key)
        with self._known:
            self._guesses.pop(key, None)

    def free_bytes(self) -> int | None:
        return None

    def objects(self, key: SegmentKey, max_age_seconds: float = 0.0) -> SegmentObjects:
        return self.objects_now(key)

    # segments

    def segment(self, key: SegmentKey) -> SegmentState:
        objects = self.objects_now(key)
        self._note(key, objects)
        return _state(objects)

    def append(self, key: SegmentKey, offset: int, body: Bytes, *, complete: bool) -> SegmentState:
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
                with self._slot(key, body):
                    is_first = self._bucket.create(part_path(key, offset), body)
                if not is_first:
                    return self._taken(key, offset, body, complete=complete)
                size += len(body)
                self._appended(key, size)
            if complete:
                self._end(key, size)
            return SegmentState(size, complete, size)

    @contextlib.contextmanager
    def _slot(self, key: SegmentKey, body: Bytes) -> Iterator[None]:
        """Wait for one of the places of large appends.

        Raises:
            StoreFailed: none is free in time.
        """
        if len(body) < LARGE_BYTES:
            yield
            return
        if not self._slots.acquire(timeout=SLOT_SECONDS):
            raise StoreFailed(
                f"{self._bucket.url} takes appends slower than they come: {key.path} has to wait"
            )
        try:
            yield
        finally:
            self._slots.release()

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
        self, key: SegmentKey, offset: int, body: Bytes, *, complete: bool
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
        self, key: SegmentKey, state: SegmentState, offset: int, body: Bytes, *, complete: bool
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
        if not kept or body[: len(kept)] != kept:
            raise OffsetConflict(state)
        if complete and not state.complete and offset + len(body) == state.size:
            # Its bytes were kept, its end was not: whoever hears yes throws the segment away.
            self._end(key, state.size)
            return replace(state, complete=True)
        return state

    def _taken(self, key: SegmentKey, offset: int, body: Bytes, *, complete: bool) -> SegmentState:
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
        self._note_segment(key, size, complete=True)
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

    def _appended(self, key: SegmentKey, size: int) -> None:
        self._remember(self._guesses, key, _Guess(size, time.monotonic()))
        self._note_segment(key, size, complete=False)


def _state(objects: SegmentObjects) -> SegmentState:
    if objects.deleted_size is not None:
        return SegmentState(objects.deleted_size, complete=True, durable=objects.deleted_size)
    size, is_complete = objects.extent
    return SegmentState(size, is_complete, size)
