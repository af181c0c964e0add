"""The store as a directory on a volume.

    {namespace}/{capture uid}/{pod uid}/meta.json, report.json
    {namespace}/{capture uid}/{pod uid}/{interface}/{seq:08d}.pcap.part     growing
    {namespace}/{capture uid}/{pod uid}/{interface}/{seq:08d}.pcap          complete

The size on disk is the truth; what this process remembers beside it is how much of it
was fsynced. A segment is fsynced, then renamed, then its folder is fsynced: a complete
one is whole whatever was cut off when. A reader sees a growing one at any size, also
inside a record that is just being written; it reads up to the last whole record.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from nightcap.contract.orders import CAPTURE_ID
from nightcap.contract.segments import (
    SEGMENT_FILE,
    BadName,
    SegmentKey,
    StreamKey,
    parse_segment_path,
)
from nightcap.contract.uploads import quote_interface
from retrieval.store.base import (
    SegmentReader,
    StoredSegment,
    StreamMeta,
)

META_FILE: Final = "meta.json"
REPORT_FILE: Final = "report.json"
_GROWING: Final = ".part"


class DirectoryReader(SegmentReader):
    """An open file of the store; removal of the file does not disturb it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ReadableDirectory:
    """The store as the files program uses it: it reads, and it deletes what a person deletes."""

    look_seconds: Final = 0.0

    def __init__(self, root: Path) -> None:
        self.root = root

    def captures(self) -> Iterator[tuple[str, str]]:
        for namespace in _folders(self.root):
            for capture in _folders(self.root / namespace):
                if _is_stream(namespace, capture, "0"):
                    yield namespace, capture

    def streams(self, namespace: str, capture: str) -> tuple[StreamKey, ...]:
        if not _is_stream(namespace, capture, "0"):
            raise BadName(f"{namespace[:80]!r} / {capture[:80]!r} is no capture")
        return tuple(
            StreamKey(namespace, capture, pod)
            for pod in sorted(_folders(self.root / namespace / capture))
            if _is_stream(namespace, capture, pod)
        )

    def segments(self, stream: StreamKey) -> tuple[StoredSegment, ...]:
        folder = self.root / stream.path
        found = (
            segment
            for interface in _folders(folder)
            for segment in _segments_in(stream, folder / interface, interface)
        )
        return tuple(sorted(found, key=lambda s: (s.key.interface, s.key.seq)))

    def meta(self, stream: StreamKey) -> StreamMeta | None:
        try:
            return msgspec.json.decode(
                (self.root / stream.path / META_FILE).read_bytes(), type=StreamMeta
            )
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def report(self, stream: StreamKey) -> bytes | None:
        try:
            return (self.root / stream.path / REPORT_FILE).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, key: SegmentKey) -> DirectoryReader:
        path = self.path(key)
        for candidate in (growing(path), path, growing(path), path):  # it may be renamed meanwhile
            with contextlib.suppress(FileNotFoundError):
                return DirectoryReader(os.open(candidate, os.O_RDONLY | os.O_NOFOLLOW))
        raise FileNotFoundError(f"no segment {key.path}")

    def delete_segment(self, key: SegmentKey) -> None:
        path = self.path(key)
        for candidate in (path, growing(path), path):
            candidate.unlink(missing_ok=True)

    def path(self, key: SegmentKey) -> Path:
        """A complete segment's path.

        Raises:
            BadName: the interface's folder would cover a file of the store.
        """
        if quote_interface(key.interface) in (META_FILE, REPORT_FILE):
            raise BadName(f"interface {key.interface!r} has a name that the store needs itself")
        return self.root / key.path


def growing(path: Path) -> Path:
    """Where a segment is until it is complete."""
    return path.with_name(path.name + _GROWING)


def _folders(path: Path) -> tuple[str, ...]:
    try:
        with os.scandir(path) as entries:
            return tuple(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _is_stream(namespace: str, capture: str, pod_uid: str) -> bool:
    """Whether these are folders of ours; a volume has others, such as `lost+found`."""
    if not CAPTURE_ID.fullmatch(capture):
        return False
    try:
        StreamKey(namespace, capture, pod_uid)
    except BadName:
        return False
    return True


def _segments_in(stream: StreamKey, folder: Path, interface: str) -> Iterator[StoredSegment]:
    # Twice: a file that is renamed while a folder is read may be seen under neither name. Each is
    # renamed once, so the other reading has seen it.
    for name in sorted(_segment_names(folder) | _segment_names(folder)):
        with contextlib.suppress(BadName):
            key = parse_segment_path(f"{stream.path}/{interface}/{name}")
            # In this order: from growing to complete it may go between the two, never back.
            for path in (growing(folder / name), folder / name):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat(follow_symlinks=False)
                    yield StoredSegment(key, status.st_size, path.name == name, status.st_mtime)
                    break


def _segment_names(folder: Path) -> set[str]:
    """Names of segments, growing or complete, as they are when complete."""
    try:
        names = {path.name.removesuffix(_GROWING) for path in folder.iterdir()}
    except FileNotFoundError:
        return set()
    return {name for name in names if SEGMENT_FILE.fullmatch(name)}
