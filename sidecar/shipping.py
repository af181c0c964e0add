"""What to send next, and what an answer means; the thread that sends is `shipper`.

All of it under `Spool.lock`; nothing here opens a file or a connection.
"""

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from nightcap.contract.uploads import MAX_BODY_BYTES
from sidecar.segment import Segment
from sidecar.spool import CaptureSpool

HEARTBEAT_SECONDS: Final = 30.0
COUNT_SECONDS: Final = 5.0
"""After this time the collector hears of packets that the last append's report did not count."""
DEFAULT_PACE_SECONDS: Final = 1.0
MAX_PACE_SECONDS: Final = 300.0
DURABLE_AGAIN_SECONDS: Final = 0.3
FIRST_DELAY_SECONDS: Final = 0.5
LAST_DELAY_SECONDS: Final = 30.0
TERMINATING_DELAY_SECONDS: Final = 1.0


class Kind(StrEnum):
    """What is sent."""

    APPEND = "append"
    ASK = "ask"
    """HEAD: what does the collector hold?"""
    HEARTBEAT = "heartbeat"
    FINAL = "final"


class Job(NamedTuple):
    """One request to send."""

    kind: Kind
    capture: CaptureSpool
    segment: Segment | None = None


class Delay:
    """Waits that double; `factor` (0.5 to 1.5) spreads those who failed together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def longer(self, factor: float, most: float = LAST_DELAY_SECONDS) -> float:
        """The next wait."""
        self.seconds = min(most, max(FIRST_DELAY_SECONDS, self.seconds * 2))
        return self.seconds * factor

    def reset(self) -> None:
        """It worked."""
        self.seconds = 0.0


def spread() -> float:
    """A random factor for waits, 0.5 to 1.5."""
    # Not by `random`, which would stay in memory for this alone.
    return 0.5 + os.urandom(1)[0] / 256


class Turn:
    """How it stands with sending one capture's things."""

    def __init__(
        self,
        retry_at: float = 0.0,
        served_at: float = 0.0,
        reported_at: float = float("-inf"),
    ) -> None:
        self.retry_at = retry_at
        self.served_at = served_at
        self.reported_at = reported_at
        self.delay = Delay()


class Turns:
    """How it stands with sending the things of all captures.

    Attributes:
        of: By capture id.
    """

    def __init__(self) -> None:
        self.of: dict[str, Turn] = {}
        self._most_delay = LAST_DELAY_SECONDS

    def keep(self, captures: Iterable[str]) -> None:
        """Have a turn for each of these, and for nobody else."""
        self.of = {name: self.of.get(name, Turn()) for name in captures}

    def hurry(self) -> None:
        """The pod is going: forget the waits, and wait less from now on."""
        self._most_delay = TERMINATING_DELAY_SECONDS
        for turn in self.of.values():
            turn.retry_at = 0.0

    def reported(self, capture_id: str, now: float) -> None:
        """A report was accepted."""
        turn = self.of.get(capture_id)
        if turn is not None:
            turn.reported_at = now
            turn.delay.reset()

    def put_off(self, capture_id: str, now: float, pause: float = 0.0) -> bool:
        """It was refused: try it later; True when it is the first time in a row.

        Args:
            capture_id: Whose turn it was.
            now: By a monotonic clock.
            pause: Seconds that the collector asks for; little of it when the pod is going.
        """
        turn = self.of.setdefault(capture_id, Turn())
        first = turn.delay.seconds == 0
        wait = turn.delay.longer(spread(), self._most_delay)
        turn.retry_at = now + min(pause, self._most_delay) + wait
        return first


def choose(
    captures: Sequence[CaptureSpool], turns: dict[str, Turn], now: float
) -> tuple[Job | None, float]:
    """The next request, of the capture that has waited longest.

    Returns:
        The job if one is due; and when to look again if none is.
    """
    again = now + HEARTBEAT_SECONDS
    for capture in sorted(captures, key=lambda each: turns[each.id].served_at):
        turn = turns[capture.id]
        if capture.ledger.gone:
            continue
        if turn.retry_at > now:
            again = min(again, turn.retry_at)
            continue
        job, due = _of_capture(capture, turn, now)
        if job is not None:
            return job, now
        again = min(again, due)
    return None, again


def _of_capture(capture: CaptureSpool, turn: Turn, now: float) -> tuple[Job | None, float]:
    again = float("inf")
    unfinished: set[str] = set()
    for segment in capture.segments:
        if segment.interface in unfinished:
            continue  # in order, so that who reads at the collector reads without gaps
        if not segment.sealed:
            unfinished.add(segment.interface)
        kind, due = _of_segment(segment)
        if kind is Kind.APPEND and capture.held:
            continue
        if kind is not None and due <= now:
            return Job(kind, capture, segment), now
        again = min(again, due)
    if capture.ledger.reported:
        return None, again
    if capture.finished and not capture.segments:
        return Job(Kind.FINAL, capture), now
    is_told = capture.status.packets == capture.told_packets
    silence = HEARTBEAT_SECONDS if is_told else COUNT_SECONDS
    heartbeat_at = now if capture.report_due else turn.reported_at + silence
    if heartbeat_at <= now:
        return Job(Kind.HEARTBEAT, capture), now
    return None, min(again, heartbeat_at)


def _of_segment(segment: Segment) -> tuple[Kind | None, float]:
    """What this segment needs, and when."""
    if segment.recovered and not segment.ours:
        return Kind.ASK, segment.next_at
    if segment.removed and segment.acked == 0:
        # It was on its way when it was dropped; an empty append would make what is not there.
        return Kind.ASK, segment.next_at
    if segment.sealed:
        return Kind.ASK, segment.next_at
    waiting = segment.size - segment.acked
    if segment.complete or waiting >= MAX_BODY_BYTES:
        return Kind.APPEND, 0.0
    if waiting > 0:
        return Kind.APPEND, segment.next_at
    return None, float("inf")


def body_end(segment: Segment) -> int | None:
    """Where the next body of a segment ends: its end, or the last mark within reach.

    Returns:
        None when no mark is within reach: the records have to be walked.
    """
    if segment.size - segment.acked <= MAX_BODY_BYTES:
        return max(segment.size, segment.acked)
    reach = segment.acked + MAX_BODY_BYTES
    within = [mark for mark in segment.marks if segment.acked < mark <= reach]
    return within[-1] if within else None


class Received(NamedTuple):
    """What the collector says that it holds of a segment."""

    offset: int
    durable: int
    complete: bool = False


def accepted(
    segment: Segment, received: Received, *, completed: bool, now: float, pace: float
) -> None:
    """Take over the answer to an append (or to a question) that succeeded."""
    segment.ours = True
    segment.acked = received.offset
    segment.durable = max(segment.durable, min(received.durable, received.offset))
    if segment.removed:
        segment.size = min(segment.size, segment.acked)
    if segment.complete and (completed or received.complete) and segment.acked >= segment.size:
        segment.sealed = True
        # The disk's next group of writes is a moment away.
        segment.next_at = now + DURABLE_AGAIN_SECONDS
    else:
        segment.next_at = now + pace
    del segment.marks[: sum(1 for mark in segment.marks if mark <= segment.acked)]


class Verdict(StrEnum):
    """What a refused offset means."""

    RESUME = "resume"
    """Go on where the collector says."""
    TAKEN = "taken"
    """Something else lies under this number."""
    DONE = "done"
    """It has all of it, and knows that."""
    STUCK = "stuck"
    """The same offset was refused that it named itself: try later."""


def judge_offset(segment: Segment, *, sent: int, received: int, fresh: bool) -> Verdict:
    """What it means that the collector refused an append at `sent` and named `received`.

    Args:
        segment: The segment.
        sent: Where the append began.
        received: What the collector holds, as it says.
        fresh: Nothing of this segment can have reached the collector before.
    """
    if fresh and received > 0:
        return Verdict.TAKEN
    if received != sent:
        return Verdict.RESUME
    return Verdict.DONE if segment.complete and received >= segment.size else Verdict.STUCK
