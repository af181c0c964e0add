"""What the collector writes of streams beside their segments: who they are, reports, sums."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.store.base import StoreFailed, StoreFull, StreamMeta, Tally
from retrieval.store.directory import META_FILE, REPORT_FILE, ReadableDirectory

# `,` is never part of a folder's name: interfaces are percent-encoded.
_TEMPORARY: Final = ",new"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DirectoryStreams(ReadableDirectory):
    """All of the store but the segments' bytes; for one process at a time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._tallies: dict[StreamKey, Tally] = {}
        self._tally_lock = threading.Lock()
        self._meta_locks = tuple(threading.Lock() for _ in range(64))

    def has_stream(self, stream: StreamKey) -> bool:
        return (self.root / stream.path / META_FILE).exists()

    def create_stream(self, stream: StreamKey, meta: StreamMeta) -> None:
        folder = self.root / stream.path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(folder / META_FILE, msgspec.json.encode(meta), safely=True)
            for parent in (folder, *list(folder.parents)[:3]):
                fsync_folder(parent)
        except OSError as error:
            raise refusal(error) from error

    def set_link(self, key: SegmentKey, link_type: int) -> None:
        def add_link(meta: StreamMeta) -> StreamMeta:
            return replace(meta, links=meta.links | {key.interface: link_type})

        self._change_meta(key.stream, add_link)

    def set_addresses(self, stream: StreamKey, ips: tuple[str, ...]) -> None:
        self._change_meta(stream, lambda meta: replace(meta, ips=ips))

    def _change_meta(self, stream: StreamKey, change: Callable[[StreamMeta], StreamMeta]) -> None:
        # Each write waits for the disk: a thousand new streams are not to wait for one another.
        with self._meta_locks[hash(stream) % len(self._meta_locks)]:
            meta = self.meta(stream)
            if meta is None or (changed := change(meta)) == meta:
                return
            path = self.root / stream.path / META_FILE
            try:
                self._write(path, msgspec.json.encode(changed), safely=True)
            except OSError as error:
                raise refusal(error) from error

    def write_report(self, stream: StreamKey, text: bytes, seq: int) -> None:
        try:
            self._write(self.root / stream.path / REPORT_FILE, text, safely=False)
        except OSError as error:
            raise refusal(error) from error

    def reported(self) -> Mapping[StreamKey, int]:
        return {}  # nobody else writes here

    def heal(self) -> None:
        pass  # a directory has one writer, which heals what it opens

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self.root).free

    def tally(self, stream: StreamKey) -> Tally:
        with self._tally_lock:
            known = self._tallies.get(stream)
            if known is None:
                known = self._tallies[stream] = self._count(stream)
            return known

    def recount(self) -> tuple[StreamKey, ...]:
        """Count anew, as people delete files through the other program.

        Returns:
            The streams of which less or more is there than was known.
        """
        with self._tally_lock:
            known = dict(self._tallies)
        changed = []
        for stream, tally in known.items():
            counted = self._count(stream)
            with self._tally_lock:
                # Appended to while it was counted: the next round will see.
                if counted != tally and self._tallies.get(stream) == tally:
                    self._tallies[stream] = counted
                    changed.append(stream)
        return tuple(changed)

    def _count(self, stream: StreamKey) -> Tally:
        sizes = [segment.size for segment in self.segments(stream)]
        return Tally(len(sizes), sum(sizes))

    def _add_to_tally(self, stream: StreamKey, segments: int, size: int) -> None:
        with self._tally_lock:
            known = self._tallies.get(stream)
            if known is not None:
                self._tallies[stream] = Tally(known.count + segments, known.bytes + size)

    def _forget_tally(self, stream: StreamKey) -> None:
        with self._tally_lock:
            self._tallies.pop(stream, None)

    def _write(self, path: Path, content: bytes, *, safely: bool) -> None:
        """Replace a small file, whole or not at all."""
        temporary = path.with_name(path.name + _TEMPORARY)
        with temporary.open("wb") as file:
            file.write(content)
            if safely:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder safe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: OSError) -> StoreFull | StoreFailed:
    """What an error of the disk is to whoever appends."""
    if error.errno in _NO_ROOM:
        return StoreFull(f"the store is full: {error.strerror}")
    return StoreFailed(f"the store failed: {error.strerror}")
