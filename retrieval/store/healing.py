"""Housekeeping of the object store: any replica does it, at any time, and again.

Complete segments become one object; their appends go a while later, as do the bytes of
deleted segments, reports that a newer one has replaced, and strays: appends that a request
left which was under way for minutes. Nothing here needs to have seen what happened before.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval import metrics
from retrieval.store.bucket import Bucket
from retrieval.store.layout import (
    Found,
    SegmentObjects,
    StreamObjects,
    part_path,
    read_segment,
    read_streams,
    segment_folder,
    whole_path,
)

AT_ONCE_BYTES: Final = 32 * 2**20
"""A larger segment is composed piece by piece."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ages:
    """How old things have to be, in seconds by the store's clock and ours together.

    Attributes:
        compose: A complete segment that nobody has composed: who completed it is gone.
        settled: Longer than any request takes and any guess of a replica is held.
        read: How long an answer under way can still read what was deleted.
        deleted: How long a deletion is remembered after that.
    """

    compose: float = 60.0
    settled: float = 180.0
    read: float = 600.0
    deleted: float = 3600.0


def compose(bucket: Bucket, key: SegmentKey, objects: SegmentObjects) -> None:
    """Make one object of a complete segment; its appends stay.

    A segment has one content, so it does no harm when two replicas do it.

    Raises:
        FileNotFoundError: it was deleted meanwhile.
        StoreFailed, StoreFull: later, then.
    """
    size, is_complete = objects.extent
    if not is_complete or not size or objects.whole is not None or objects.deleted is not None:
        return
    chain = list(objects.chain())
    if len(chain) == 1:
        bucket.copy(part_path(key, 0), whole_path(key))
    elif size <= AT_ONCE_BYTES:
        bucket.create(whole_path(key), b"".join(_contents(bucket, key, chain)))
    else:
        bucket.upload(whole_path(key), _contents(bucket, key, chain))


def _contents(bucket: Bucket, key: SegmentKey, chain: list[tuple[int, Found]]) -> Iterator[bytes]:
    for offset, part in chain:
        yield bucket.read(part_path(key, offset), 0, part.size)


def heal_capture(
    bucket: Bucket, namespace: str, capture: str, now: float, ages: Ages
) -> Mapping[StreamKey, StreamObjects]:
    """Do what is due in a capture.

    Args:
        bucket: The store.
        namespace: Of the capture.
        capture: Its uid.
        now: Seconds since the epoch.
        ages: What is due when.

    Returns:
        What was there when it began.
    """
    streams = read_streams(bucket.list(f"{namespace}/{capture}/"))
    garbage = []
    for stream in streams.values():
        latest = stream.latest_report
        garbage += [
            report
            for seq, report in stream.reports.items()
            if seq != latest and now - report.changed_at > ages.settled
        ]
        for key, objects in stream.segments.items():
            if is_to_compose(objects, now, ages):
                try:
                    compose(bucket, key, objects)
                except FileNotFoundError:
                    continue
            garbage += _garbage(bucket, key, objects, now, ages)
    bucket.delete([each.path for each in garbage])
    return streams


def _garbage(
    bucket: Bucket, key: SegmentKey, objects: SegmentObjects, now: float, ages: Ages
) -> list[Found]:
    found = garbage_of(objects, now, ages)
    if found and objects.whole is None and objects.deleted is None:
        # Strays. A list of many pages is no picture of one moment: look at the segment alone.
        found = garbage_of(read_segment(bucket.list(segment_folder(key))), now, ages)
        if found:
            metrics.STRAY_APPENDS.inc(len(found))
            _log.warning(
                "appends removed that belong to nothing",
                extra={"segment": key.path, "objects": [each.path for each in found]},
            )
    return found


def is_to_compose(objects: SegmentObjects, now: float, ages: Ages) -> bool:
    """Whether a segment is complete and nobody is composing it any more."""
    size, is_complete = objects.extent
    return (
        is_complete
        and size > 0
        and objects.whole is None
        and objects.deleted is None
        and now - objects.changed_at > ages.compose
    )


def garbage_of(objects: SegmentObjects, now: float, ages: Ages) -> list[Found]:
    """The objects of a segment that nothing and nobody needs any more."""
    if objects.deleted is not None:
        age = now - objects.deleted.changed_at
        if age <= ages.read:
            return []
        left = objects.all()
        return left or ([objects.deleted] if age > ages.deleted else [])
    if objects.whole is not None:
        is_settled = now - objects.whole.changed_at > ages.settled
        return list(objects.parts.values()) if is_settled else []
    return [part for part in objects.strays() if now - part.changed_at > ages.settled]
