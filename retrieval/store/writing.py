"""The directory as the collector writes it: appends, and the group commit that makes them safe.

A segment is fsynced, then renamed to its final name, then its folder is fsynced: a
complete one is whole, whatever was cut off when.
"""

import contextlib
import os
import shutil
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.store.base import (
    Bytes,
    OffsetConflict,
    SegmentState,
    StoreFailed,
)
from retrieval.store.directory import growing
from retrieval.store.directory_streams import DirectoryStreams, fsync_folder, refusal

COMMIT_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 60.0
_MAX_OPEN: Final = 512
"""Files kept open between appends; far below the usual limit of 1 024 descriptors."""


@dataclass(slots=True)
class _Open:
    """A segment that is being appended to.

    Attributes:
        durable: Bytes that an fsync has covered; None when this process has not fsynced it yet.
        ended: Its end is on disk as well.
        gone: Removed, or in an unknown condition; its descriptor waits to be closed.
    """

    key: SegmentKey
    descriptor: int
    size: int
    durable: int | None
    used_at: float
    finish: bool = False
    ended: bool = False
    dirty: bool = False
    gone: bool = False
    error: OSError | None = None

    @property
    def safe(self) -> int:
        """Bytes that may be called durable: not all of them before the segment's end is, too.

        Whoever sent it would throw it away, and a crash would leave it growing for ever.
        """
        durable = self.durable or 0
        return durable if self.ended or not self.finish else min(durable, self.size - 1)


class DirectoryStore(DirectoryStreams):
    """The store as the collector uses it; one process at a time.

    Appends to one segment are serialised; one thread makes what was appended safe, all
    segments together, at most every `commit_seconds`.
    """

    pace_seconds: Final = 1.0

    def __init__(self, root: Path, *, commit_seconds: float = COMMIT_SECONDS) -> None:
        super().__init__(root)
        self._commit_seconds = commit_seconds
        self._locks = tuple(threading.Lock() for _ in range(256))
        self._open: dict[SegmentKey, _Open] = {}
        self._dirty: dict[SegmentKey, _Open] = {}
        self._dirty_folders: set[Path] = set()
        self._retired: deque[_Open] = deque()
        self._committed = threading.Condition()
        self._wanted = threading.Event()
        self._stopping = False
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="fsync")
        self._thread = threading.Thread(target=self._commit_for_ever, name="commit", daemon=True)

    def fault(self) -> str | None:
        return None

    def start(self) -> None:
        """Begin to commit; after a fork, in the process that appends.

        Raises:
            StoreFailed: the directory cannot be written to.
        """
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise StoreFailed(
                f"{self.root} is no directory that uid {os.geteuid()} may write to; "
                "mount a volume there, with an fsGroup of the pod"
            )
        self._thread.start()

    def close(self) -> None:
        """Make everything safe and let go of all files."""
        self._stopping = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown()
        for segment in (*self._open.values(), *self._retired):
            os.close(segment.descriptor)
        self._open.clear()
        self._retired.clear()

    def delete_capture(self, namespace: str, capture: str) -> None:
        for stream in self.streams(namespace, capture):
            self._forget(stream)
        shutil.rmtree(self.root / namespace / capture, ignore_errors=True)

    def delete_segment(self, key: SegmentKey) -> None:
        with self._lock(key):
            self._retire(key)
            super().delete_segment(key)
        self._forget_tally(key.stream)

    # segments

    def segment(self, key: SegmentKey) -> SegmentState:
        with self._lock(key):
            return self._state(key)

    def append(self, key: SegmentKey, offset: int, body: Bytes, *, complete: bool) -> SegmentState:
        with self._lock(key):
            state = self._state(key)
            if offset != state.size or (state.complete and (body or not complete)):
                raise OffsetConflict(state)
            if state.complete or (not body and (not complete or not state.size)):
                return state
            segment = self._opened(key, create=state.size == 0)
            if body:
                self._write_body(segment, body, is_new=state.size == 0)
            segment.finish = complete
            self._mark(segment)
            return SegmentState(segment.size, complete, segment.safe)

    def wait_durable(self, key: SegmentKey, size: int, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        with self._lock(key):
            state = self._state(key)
            if state.durable >= size:
                return state.durable
            segment = self._opened(key, create=False)
            self._mark(segment)
        with self._committed:
            while not (segment.error or segment.gone) and segment.safe < size:
                left = deadline - time.monotonic()
                if left <= 0 or not self._committed.wait(left):
                    break
        if segment.error is not None:
            raise refusal(segment.error) from segment.error
        return segment.safe

    def _lock(self, key: SegmentKey) -> threading.Lock:
        return self._locks[hash(key) % len(self._locks)]

    def _state(self, key: SegmentKey) -> SegmentState:
        """A segment as it is; the caller holds its lock."""
        segment = self._open.get(key)
        if segment is not None:
            if os.fstat(segment.descriptor).st_nlink:
                return SegmentState(segment.size, segment.finish, segment.safe)
            self._retire(key)  # a person deleted it through the other program
        path = self.path(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return SegmentState(growing(path).lstat().st_size)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            size = path.lstat().st_size
            return SegmentState(size, complete=True, durable=size)
        return SegmentState()

    def _opened(self, key: SegmentKey, *, create: bool) -> _Open:
        segment = self._open.get(key)
        if segment is None:
            path = growing(self.path(key))
            folder = path.parent
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                if create:
                    if not folder.is_dir():
                        folder.mkdir(exist_ok=True)  # another segment's first append may come first
                        self._dirty_folders.add(folder.parent)
                    self._dirty_folders.add(folder)
                    flags |= os.O_CREAT  # an empty one may be left of a crash
                descriptor = os.open(path, flags, 0o640)
                size = os.fstat(descriptor).st_size
            except OSError as error:
                raise refusal(error) from error
            segment = _Open(key, descriptor, size, 0 if create else None, time.monotonic())
            self._open[key] = segment
        return segment

    def _write_body(self, segment: _Open, body: Bytes, *, is_new: bool) -> None:
        view = memoryview(body)
        try:
            while view:
                view = view[os.write(segment.descriptor, view) :]
        except OSError as error:
            os.ftruncate(segment.descriptor, segment.size)
            if is_new:
                self._retire(segment.key)
                super().delete_segment(segment.key)
            raise refusal(error) from error
        segment.size += len(body)
        self._add_to_tally(segment.key.stream, int(is_new), len(body))

    def _mark(self, segment: _Open) -> None:
        segment.used_at = time.monotonic()
        segment.dirty = True
        self._dirty[segment.key] = segment
        self._wanted.set()

    def _retire(self, key: SegmentKey) -> None:
        """Let go of a segment; the committing thread closes it, which may be syncing it now."""
        segment = self._open.pop(key, None)
        if segment is not None:
            self._dirty.pop(key, None)
            segment.gone = True
            self._retired.append(segment)
            self._wanted.set()

    def _forget(self, stream: StreamKey) -> None:
        for key in [key for key in tuple(self._open) if key.stream == stream]:
            with self._lock(key):
                self._retire(key)
        self._forget_tally(stream)

    # the committing thread

    def _commit_for_ever(self) -> None:
        while not self._stopping or self._dirty:
            self._wanted.wait(_IDLE_SECONDS)
            self._wanted.clear()
            started = time.monotonic()
            self._commit()
            self._close_idle(started)
            if not self._stopping:
                time.sleep(max(0.0, self._commit_seconds - (time.monotonic() - started)))

    def _commit(self) -> None:
        while self._retired:
            os.close(self._retired.popleft().descriptor)
        batch = []
        for key in tuple(self._dirty):
            segment_or_none = self._dirty.pop(key, None)
            if segment_or_none is not None:
                batch.append(segment_or_none)
        synced = list(self._pool.map(self._sync, batch))
        fault = self._sync_folders()
        with self._committed:
            for segment, done in zip(batch, synced, strict=True):
                if done is None:
                    continue
                if fault is None:
                    segment.durable, segment.ended = done
                else:
                    segment.error = fault
            self._committed.notify_all()
        for segment in batch:
            if segment.ended or segment.error is not None:
                with self._lock(segment.key):
                    if not (segment.gone or (segment.dirty and segment.error is None)):
                        self._retire(segment.key)

    def _sync(self, segment: _Open) -> tuple[int, bool] | None:
        """Make one segment safe, and give it its final name when it is complete.

        Returns:
            Bytes that are safe, and whether the end is; None when nobody knows.
        """
        with self._lock(segment.key):
            if segment.gone:
                return None
            size, finish, segment.dirty = segment.size, segment.finish, False
        try:
            os.fsync(segment.descriptor)
        except OSError as error:
            self._give_up(segment, error)
            return None
        if finish:
            path = self.path(segment.key)
            try:
                growing(path).rename(path)
            except FileNotFoundError:
                return size, finish  # a person deleted it meanwhile
            except OSError as error:
                self._give_up(segment, error)
                return None
            self._dirty_folders.add(path.parent)
        return size, finish

    def _give_up(self, segment: _Open, error: OSError) -> None:
        """After a failed fsync nobody knows what is on disk: keep only what was safe before."""
        with self._lock(segment.key):
            if segment.durable is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(segment.descriptor, segment.durable)
            segment.error = error
            self._retire(segment.key)
        self._forget_tally(segment.key.stream)

    def _sync_folders(self) -> OSError | None:
        while self._dirty_folders:
            folder = self._dirty_folders.pop()
            try:
                fsync_folder(folder)
            except FileNotFoundError:
                continue  # its capture was deleted
            except OSError as error:
                self._dirty_folders.add(folder)
                return error
        return None

    def _close_idle(self, now: float) -> None:
        before = now - _IDLE_SECONDS if len(self._open) <= _MAX_OPEN else now
        for key, segment in tuple(self._open.items()):
            if segment.used_at < before:
                with self._lock(key):
                    if not (segment.dirty or segment.gone):
                        self._retire(key)
