"""Which segments of which captures must go so that the spool keeps its limits."""

from collections.abc import Iterable

from sidecar import rotation
from sidecar.segment import Segment


def to_drop(
    segments: Iterable[tuple[str, Segment]], limit_bytes: int
) -> list[tuple[str, Segment, bool]]:
    """Ask the policy.

    Args:
        segments: Those of which the file is there, with the id of their capture.
        limit_bytes: For all of them together.

    Returns:
        Capture, segment and whether it was shipped, in the order in which they go.
    """
    by_age = sorted(segments, key=lambda pair: pair[1].age)
    by_key = {((capture, each.interface), each.seq): (capture, each) for capture, each in by_age}
    stored = [
        rotation.Stored(
            stream=stream,
            seq=seq,
            size=segment.size,
            max_files=segment.max_files,
            growing=not segment.complete,
            shipped=segment.shipped,
            busy=segment.busy,
        )
        for (stream, seq), (_, segment) in by_key.items()
    ]
    victims = rotation.to_drop(stored, limit_bytes)
    return [(*by_key[victim.stream, victim.seq], victim.shipped) for victim in victims]
