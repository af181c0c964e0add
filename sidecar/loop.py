"""Whether what is recorded is our own upload coming back.

A mesh proxy in the pod may open our upload anew, from a port that the filters do not
know. Equal rates prove nothing: what is recorded is uploaded, so they are equal in any
case. Only a trial tells: shipping pauses for a moment, and in a loop the recording
stops with it, time after time.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

WATCH_SECONDS: Final = 10.0
LEAST_BYTES: Final = 32 * 2**10
"""Less than this in the time of watching is not worth a pause; a loop grows beyond it."""
TRIALS: Final = 3
_PAUSE_SHARE: Final = 0.12
_LEAST_RATIO: Final = 0.5
_COLLAPSE: Final = 0.25
_PATIENCE: Final = 6.0
"""After a trial that showed no loop the next one waits so many times longer."""
_LONGEST_WATCH: Final = 60.0


class _Sample(NamedTuple):
    """The counters at one moment."""

    at: float
    uploaded: int
    recorded: Mapping[str, int]


class LoopDetector:
    """Looks at counters now and then, and asks for pauses.

    Attributes:
        watch_seconds: How long rates have to be alike before a trial.
        paused: Nothing may be shipped for the moment.
        looping: Captures that record our upload.
    """

    def __init__(self, watch_seconds: float = WATCH_SECONDS) -> None:
        self.watch_seconds = watch_seconds
        self.paused = False
        self.looping: set[str] = set()
        self._samples: deque[_Sample] = deque()
        self._wait = 0.0
        self._rates: dict[str, float] = {}
        self._hits: dict[str, int] = {}

    @property
    def interval(self) -> float:
        """Seconds until the next look, at most."""
        return self.watch_seconds * _PAUSE_SHARE / 8 if self.paused else self.watch_seconds / 4

    def observe(self, now: float, uploaded: int, recorded: Mapping[str, int]) -> None:
        """Take one look.

        Args:
            now: Monotonic clock.
            uploaded: Bytes sent to the collector so far.
            recorded: Bytes recorded so far, by capture.
        """
        self._samples.append(_Sample(now, uploaded, dict(recorded)))
        if self.paused:
            self._judge(now)
        else:
            self._watch(now)

    def forget(self, capture_id: str) -> None:
        """The capture is another one now, or gone."""
        self.looping.discard(capture_id)
        self._hits.pop(capture_id, None)
        self._rates.pop(capture_id, None)

    def _watch(self, now: float) -> None:
        # Once suspected, the next trial follows sooner.
        base = self.watch_seconds / 2 if self._hits else self.watch_seconds
        span = base * max(1.0, self._wait)
        first, last = self._samples[0], self._samples[-1]
        if last.at - first.at < span:
            return
        while len(self._samples) > 1 and now - self._samples[1].at >= base:
            self._samples.popleft()
        first = self._samples[0]
        seconds = last.at - first.at
        sent = last.uploaded - first.uploaded
        self._rates = {
            name: (total - first.recorded[name]) / seconds
            for name, total in last.recorded.items()
            if name in first.recorded
            and name not in self.looping
            and total - first.recorded[name] >= sent * _LEAST_RATIO
        }
        if sent >= LEAST_BYTES * seconds / WATCH_SECONDS and self._rates:
            self.paused = True
            self._samples.clear()

    def _judge(self, now: float) -> None:
        pause = self.watch_seconds * _PAUSE_SHARE
        if now - self._samples[0].at < pause:
            return
        # What was on its way when the pause began arrives in its first half.
        last = self._samples[-1]
        middle = next(each for each in self._samples if now - each.at <= pause / 2 or each is last)
        seconds = max(last.at - middle.at, 0.001)
        collapsed = {
            name
            for name, rate in self._rates.items()
            if middle is not last
            and name in last.recorded
            and name in middle.recorded
            and (last.recorded[name] - middle.recorded[name]) / seconds < rate * _COLLAPSE
        }
        self._hits = {name: self._hits.get(name, 0) + 1 for name in collapsed}
        self.looping |= {name for name, hits in self._hits.items() if hits >= TRIALS}
        for name in self.looping:
            self._hits.pop(name, None)
        self._wait = 0.0 if collapsed else min(_LONGEST_WATCH, max(1.0, self._wait) * _PATIENCE)
        self.paused = False
        self._samples.clear()
