"""When a segment is full, and which segments must go.

Knows sizes, times and counts; files are the spool's business.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from nightcap.contract.orders import Rotation

LEAST_SEGMENT_BYTES: Final = 4096
_SPARE: Final = 4
"""So many full segments of every stream must fit, or dropping one would drop nearly all."""


class Stored(NamedTuple):
    """One segment in the spool, as far as this policy cares.

    Attributes:
        stream: What it is a part of: (capture, interface).
        growing: It is being written; it cannot go.
        shipped: All of it is durable at the collector.
        busy: It is being uploaded now.
        max_files: How many segments of its stream may stay.
    """

    stream: tuple[str, str]
    seq: int
    size: int
    max_files: int
    growing: bool = False
    shipped: bool = False
    busy: bool = False


def segment_limit(rotation: Rotation, *, spool_bytes: int, streams: int) -> int:
    """Bytes at which a segment is full: as ordered, or less where the spool is small."""
    share = spool_bytes // (_SPARE * max(1, streams))
    return max(LEAST_SEGMENT_BYTES, min(rotation.max_bytes, share))


def is_full(*, written: int, limit: int, age_seconds: float, max_seconds: float) -> bool:
    """Whether the next packet belongs into a new segment."""
    return written >= limit or age_seconds >= max_seconds


def to_drop(segments: Sequence[Stored], spool_bytes: int) -> list[Stored]:
    """Which segments must go, so that counts and the spool's size hold.

    Args:
        segments: Oldest first, over all captures.
        spool_bytes: What all of them together may take.

    Returns:
        In the order in which they go. Of each choice the shipped go first, then the oldest; one
        that is being uploaded only when nothing else is left.
    """
    dropped: list[Stored] = []
    kept = list(segments)
    streams: dict[tuple[str, str], list[Stored]] = {}
    for segment in kept:
        streams.setdefault(segment.stream, []).append(segment)
    for members in streams.values():
        # The newest member's order counts: it was written under the rotation that holds now.
        excess = len(members) - members[-1].max_files
        dropped += _victims(members)[: max(0, excess)]
    gone = {(segment.stream, segment.seq) for segment in dropped}
    kept = [segment for segment in kept if (segment.stream, segment.seq) not in gone]
    total = sum(segment.size for segment in kept)
    for segment in _victims(kept):
        if total <= spool_bytes:
            break
        dropped.append(segment)
        total -= segment.size
    return dropped


def _victims(segments: Sequence[Stored]) -> list[Stored]:
    """Those that may go, first the one that is missed least."""
    complete = [segment for segment in segments if not segment.growing]
    return sorted(complete, key=lambda segment: (segment.busy, not segment.shipped))
