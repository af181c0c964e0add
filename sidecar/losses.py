"""What the spool had to drop before it was shipped: how much, and which. Pure.

Neighbours become one gap, so that a collector that was away for hours leaves few of them.
"""

from nightcap.contract.reports import MAX_GAPS, Gap, Lost


def lose(lost: Lost, interface: str, seq: int, *, start: int, end: int) -> Lost:
    """Count the bytes from `start` to `end` of a segment, its last ones that were not yet counted.

    Args:
        lost: What was lost before.
        interface: The segment's.
        seq: Its number.
        start: So many bytes of it are at the collector.
        end: Where it ended, or what is counted already begins.
    """
    size = end - start
    place = _place(lost, interface, seq)
    if place is not None:
        gap = lost.gaps[place]
        offset = start if gap.first == seq else gap.offset
        grown = gap._replace(offset=offset, bytes=gap.bytes + size)
        return Lost(lost.segments, lost.bytes + size, _with(lost.gaps, place, grown))
    gaps = (*lost.gaps, Gap(interface, seq, seq, start, size))
    return Lost(lost.segments + 1, lost.bytes + size, _joined(gaps)[-MAX_GAPS:])


def regain(lost: Lost, interface: str, seq: int, *, size: int, offset: int) -> Lost:
    """Take back `size` bytes of a segment: they had reached the collector, which has `offset`."""
    place = _place(lost, interface, seq)
    if place is None:
        return lost._replace(bytes=max(0, lost.bytes - size))
    gap = lost.gaps[place]
    begin = offset if gap.first == seq else gap.offset
    rest = gap._replace(offset=begin, bytes=max(0, gap.bytes - size))
    segments, gaps = lost.segments, _with(lost.gaps, place, rest)
    if rest.bytes == 0:
        segments -= rest.last - rest.first + 1
        gaps = tuple(each for each in gaps if each is not rest)
    return Lost(max(0, segments), max(0, lost.bytes - size), gaps)


def _place(lost: Lost, interface: str, seq: int) -> int | None:
    for place, gap in enumerate(lost.gaps):
        if gap.interface == interface and gap.first <= seq <= gap.last:
            return place
    return None


def _with(gaps: tuple[Gap, ...], place: int, gap: Gap) -> tuple[Gap, ...]:
    return (*gaps[:place], gap, *gaps[place + 1 :])


def _joined(gaps: tuple[Gap, ...]) -> tuple[Gap, ...]:
    """The last one joined to a neighbour of its own interface."""
    *others, new = gaps
    for place, old in enumerate(others):
        if old.interface != new.interface:
            continue
        for earlier, later in ((old, new), (new, old)):
            if earlier.last + 1 == later.first and later.offset == 0:
                joined = Gap(
                    new.interface,
                    earlier.first,
                    later.last,
                    earlier.offset,
                    earlier.bytes + later.bytes,
                )
                return (*others[:place], *others[place + 1 :], joined)
    return gaps
