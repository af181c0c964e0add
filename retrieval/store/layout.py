"""How objects of the store are named, and what the names of a segment's objects say of it. Pure.

    {namespace}/{capture uid}/{pod uid}/meta.json
    {namespace}/{capture uid}/{pod uid}/report.json/{seq:016d}
    {namespace}/{capture uid}/{pod uid}/{interface}/{seq:08d}.pcap/{offset:012d}     one append
    {namespace}/{capture uid}/{pod uid}/{interface}/{seq:08d}.pcap/whole             all of them
    {namespace}/{capture uid}/{pod uid}/{interface}/{seq:08d}.pcap/deleted-{size}

An append is created at the offset where the segment ends, by whoever comes first; an empty
one at the end says that nothing follows. So appends are a chain from 0, and a segment has one
content only. See docs/decisions/0011.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from nightcap.contract.segments import BadName, SegmentKey, StreamKey, parse_segment_path
from nightcap.contract.uploads import quote_interface

META: Final = "meta.json"
REPORT: Final = "report.json"
_WHOLE: Final = "whole"
_NUMBERED: Final = re.compile(r"[0-9]{12,18}")
_DELETED: Final = re.compile(r"deleted-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Found:
    """One object as a listing shows it.

    Attributes:
        changed_at: Seconds since the epoch, by the store's clock.
    """

    path: str
    size: int
    changed_at: float
    e_tag: str | None = None


@dataclass(slots=True)
class SegmentObjects:
    """The objects of one segment.

    Attributes:
        parts: Offset → object, of each append.
        whole: The composed segment.
        deleted_size: How long it was when it was deleted; None while it was not.
    """

    parts: dict[int, Found] = field(default_factory=dict)
    whole: Found | None = None
    deleted: Found | None = None
    deleted_size: int | None = None

    def chain(self) -> Iterator[tuple[int, Found]]:
        """The appends from 0 to the last one that is joined to them, without an empty one."""
        at = 0
        while (part := self.parts.get(at)) is not None and part.size:
            yield at, part
            at += part.size

    @property
    def extent(self) -> tuple[int, bool]:
        """(bytes, whether nothing follows) of what is stored; deleted or not."""
        if self.whole is not None:
            return self.whole.size, True
        size = 0
        for at, part in self.chain():
            size = at + part.size
        return size, size in self.parts

    @property
    def changed_at(self) -> float:
        """When the last append came."""
        objects = list(self.parts.values()) or ([self.whole] if self.whole else [])
        return max((each.changed_at for each in objects), default=0.0)

    def all(self) -> list[Found]:
        """Every object, the mark of deletion left out."""
        return [*self.parts.values(), *([self.whole] if self.whole else [])]

    def strays(self) -> list[Found]:
        """Appends that are not joined to the others: nobody was told that they are kept."""
        size, is_complete = self.extent
        joined = {at for at, _ in self.chain()} | ({size} if is_complete else set())
        return [part for at, part in self.parts.items() if at not in joined]


@dataclass(slots=True)
class StreamObjects:
    """The objects of one stream.

    Attributes:
        reports: Number → object.
    """

    meta: Found | None = None
    reports: dict[int, Found] = field(default_factory=dict)
    segments: dict[SegmentKey, SegmentObjects] = field(default_factory=dict)

    @property
    def latest_report(self) -> int | None:
        return max(self.reports, default=None)


def part_path(key: SegmentKey, offset: int) -> str:
    """Where an append is created; at the end of a segment also the mark that nothing follows."""
    return f"{_segment_path(key)}/{offset:012d}"


def whole_path(key: SegmentKey) -> str:
    """Where a complete segment is composed."""
    return f"{_segment_path(key)}/{_WHOLE}"


def deleted_path(key: SegmentKey, size: int) -> str:
    """Where the mark of a deletion lies."""
    return f"{_segment_path(key)}/deleted-{size}"


def segment_folder(key: SegmentKey) -> str:
    """Below which all objects of a segment lie."""
    return f"{_segment_path(key)}/"


def report_path(stream: StreamKey, seq: int) -> str:
    """Where a report lies; the highest number counts."""
    return f"{stream.path}/{REPORT}/{seq:016d}"


def meta_path(stream: StreamKey) -> str:
    """Where a stream's meta lies, which is the yes to its appends."""
    return f"{stream.path}/{META}"


def _segment_path(key: SegmentKey) -> str:
    """A segment's folder.

    Raises:
        BadName: the interface's folder would cover an object of the store.
    """
    if quote_interface(key.interface) in (META, REPORT):
        raise BadName(f"interface {key.interface!r} has a name that the store needs itself")
    return key.path


def read_segment(found: Iterable[Found]) -> SegmentObjects:
    """Sort the objects of one segment; what has no name of ours is passed over."""
    objects = SegmentObjects()
    for each in found:
        _sort_in(objects, each.path.rpartition("/")[2], each)
    return objects


def read_streams(found: Iterable[Found]) -> Mapping[StreamKey, StreamObjects]:
    """Sort objects of any streams; what has no name of ours is passed over."""
    streams: dict[StreamKey, StreamObjects] = {}
    folders: dict[str, SegmentObjects | None] = {}
    for each in found:
        folder, _, name = each.path.rpartition("/")
        depth = folder.count("/")
        if depth == 4:
            objects = folders.get(folder)
            if objects is None and folder not in folders:
                objects = folders[folder] = _segment_of(streams, folder)
            if objects is not None:
                _sort_in(objects, name, each)
        elif depth == 2 and name == META:
            stream = _stream_of(streams, folder)
            if stream is not None:
                stream.meta = each
        elif depth == 3 and folder.endswith(f"/{REPORT}") and name.isascii() and name.isdigit():
            stream = _stream_of(streams, folder.rpartition("/")[0])
            if stream is not None:
                stream.reports[int(name[:18])] = each
    return streams


def _sort_in(objects: SegmentObjects, name: str, found: Found) -> None:
    if _NUMBERED.fullmatch(name):
        objects.parts[int(name)] = found
    elif name == _WHOLE:
        objects.whole = found
    elif deleted := _DELETED.fullmatch(name):
        objects.deleted = found
        objects.deleted_size = max(int(deleted[1]), objects.deleted_size or 0)


def _stream_of(streams: dict[StreamKey, StreamObjects], folder: str) -> StreamObjects | None:
    try:
        key = StreamKey(*folder.split("/"))
    except (BadName, TypeError):
        return None
    return streams.setdefault(key, StreamObjects())


def _segment_of(streams: dict[StreamKey, StreamObjects], folder: str) -> SegmentObjects | None:
    try:
        key = parse_segment_path(folder)
    except BadName:
        return None
    return streams.setdefault(key.stream, StreamObjects()).segments.setdefault(
        key, SegmentObjects()
    )
