"""What is thrown away and what is refused for want of room: decisions over sizes and names.

Deletion itself is the janitor's and the store's; nothing here looks at a clock.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nightcap.contract.captures import WhenFull
from retrieval.store.base import StoredSegment

SLACK_BYTES: Final = 64 * 2**20
"""What a pod may have under way when its capture reaches `limits.maxSize`."""


class Room(StrEnum):
    """What a pod's stored bytes mean for its next append."""

    ENOUGH = "enough"
    REACHED = "reached"
    """The limit is reached: tell the sidecar to end, and take what it has recorded."""
    EXCEEDED = "exceeded"
    """More than that: refuse."""


def room(stored_bytes: int, coming_bytes: int, limit_bytes: int, when_full: WhenFull) -> Room:
    """Whether there is room for an append within a capture's `limits.maxSize`.

    Args:
        stored_bytes: Of all segments of the pod in this capture.
        coming_bytes: Of the append.
        limit_bytes: 0 means no limit.
        when_full: A ring never ends for its size; it makes room instead (`to_drop`).
    """
    total = stored_bytes + coming_bytes
    if not limit_bytes or total <= limit_bytes:
        return Room.ENOUGH
    if coming_bytes and total > limit_bytes + SLACK_BYTES:
        return Room.EXCEEDED
    return Room.ENOUGH if when_full is WhenFull.DROP_OLDEST else Room.REACHED


def to_drop(segments: Sequence[StoredSegment], limit_bytes: int) -> list[StoredSegment]:
    """The oldest complete segments whose removal brings a pod below its limit.

    A growing segment is never dropped: its sidecar is appending to it.
    """
    surplus = sum(segment.size for segment in segments) - limit_bytes
    dropped = []
    for segment in sorted(segments, key=lambda s: (s.modified_at, s.key.seq)):
        if surplus <= 0:
            break
        if segment.complete:
            dropped.append(segment)
            surplus -= segment.size
    return dropped


@dataclass(frozen=True, slots=True)
class Stored:
    """A capture as the store has it.

    Attributes:
        bytes: Of all its segments.
        modified_at: Time of the last append to any of them, seconds since the epoch.
        finished: Its object says that it records no more; of one without an object nobody knows.
    """

    namespace: str
    capture: str
    bytes: int
    modified_at: float
    finished: bool


def to_give_up(stored: Iterable[Stored], limit_bytes: int) -> list[Stored]:
    """The finished captures whose files go so that all others fit; the oldest go first.

    One that runs is never given up: when they alone are too much, uploads are refused.

    Args:
        stored: All captures.
        limit_bytes: For all of them together; 0 means no limit.
    """
    everything = sorted(stored, key=lambda each: each.modified_at)
    surplus = sum(each.bytes for each in everything) - limit_bytes
    given_up = []
    for each in everything if limit_bytes else ():
        if surplus <= 0:
            break
        if each.finished and each.bytes:
            given_up.append(each)
            surplus -= each.bytes
    return given_up


def suspects(
    stored: Iterable[tuple[str, str]], watched: Collection[str]
) -> dict[str, frozenset[str]]:
    """Stored captures that the watch does not know: the API server is to be asked about them.

    Args:
        stored: (namespace, capture uid).
        watched: Uids that the watch knows.

    Returns:
        Capture uids by namespace.
    """
    found: dict[str, set[str]] = {}
    for namespace, capture in stored:
        if capture not in watched:
            found.setdefault(namespace, set()).add(capture)
    return {namespace: frozenset(captures) for namespace, captures in found.items()}


def orphans(asked: Collection[str], live: Collection[str] | None) -> frozenset[str]:
    """The captures whose files go, because their object is gone.

    Args:
        asked: Uids of suspects of one namespace.
        live: Uids that the API server named after that; None when it could not be asked,
            which condemns nobody.
    """
    if live is None:
        return frozenset()
    return frozenset(asked) - frozenset(live)
