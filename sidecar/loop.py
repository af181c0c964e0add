"""Whether what is recorded is our own upload coming back.

A mesh proxy in the pod may open our upload anew, from a port that the filters do not
know. Equal rates prove nothing: what is recorded is uploaded, so they are equal in any
case. Only a trial tells, and only one whose course nobody else can know: shipping goes
on in three windows of six, drawn by lot. What comes back comes in these three alone; an
application's own traffic, however uneven, matches one draw of twenty at most.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Final, NamedTuple

WATCH_SECONDS: Final = 10.0
LEAST_BYTES: Final = 32 * 2**10
"""Less than this in the time of watching is not worth a trial; a loop grows beyond it."""
WINDOWS: Final = 6
DRAWS: Final = tuple(frozenset(each) for each in combinations(range(WINDOWS), WINDOWS // 2))
"""Which windows of a trial may be open; each draw is as likely as any other."""
PROOFS: Final = 4
"""So many trials more have to match than not. Even if an application's traffic were made to match
one draw in each trial, one series of 145 000 would come so far."""
CONTRAST: Final = 4.0
SETTLE_SECONDS: Final = 0.25
"""Before each window nothing is shipped for so long: what is on its way belongs to none. The kernel
hands packets over after a tenth of a second at the latest."""
_LEAST_WINDOW_SECONDS: Final = 0.3
_WINDOW_SHARE: Final = 0.08
_LEAST_RATIO: Final = 0.5
_LOOK_SECONDS: Final = 0.05
_PATIENCE: Final = 2.0
"""After a trial that showed no loop the next one waits so many times longer."""
_LONGEST_WAIT: Final = 60.0


class _Sample(NamedTuple):
    """The counters at one moment."""

    at: float
    uploaded: int
    recorded: Mapping[str, int]


class Trial:
    """One trial: windows of one length, some open to shipping, and what was recorded in each.

    Attributes:
        is_open: Shipping goes on at the moment.
        suspects: Captures for which all windows so far match the draw.
        is_over: Nothing more is to be learnt.
    """

    def __init__(
        self, suspects: Mapping[str, float], drawn: frozenset[int], window_seconds: float
    ) -> None:
        """Begin with shipping held.

        Args:
            suspects: What each capture recorded of late, in bytes per second.
            drawn: Numbers of the windows that are open.
            window_seconds: Length of each.
        """
        self.suspects = set(suspects)
        self.is_open = False
        self._usual = suspects
        self._drawn = drawn
        self._window_seconds = window_seconds
        self._number = 0
        self._idle_since: float | None = None
        self._begun: _Sample | None = None
        self._open_rates: dict[str, list[float]] = {name: [] for name in suspects}
        self._held_rates: dict[str, list[float]] = {name: [] for name in suspects}

    @property
    def is_over(self) -> bool:
        return self._number == WINDOWS or not self.suspects

    def next_at(self, now: float) -> float:
        """When to look again, by the monotonic clock."""
        if self._begun is not None:
            return self._begun.at + self._window_seconds
        if self._idle_since is not None:
            return self._idle_since + SETTLE_SECONDS
        return now + _LOOK_SECONDS

    def look(self, sample: _Sample, *, sending: bool) -> None:
        """Go on when it is time.

        Args:
            sample: The counters now.
            sending: A request is on its way.
        """
        if self._begun is not None:
            if sample.at - self._begun.at >= self._window_seconds:
                self._end_window(self._begun, sample)
        elif sending:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = sample.at
        elif sample.at - self._idle_since >= SETTLE_SECONDS:
            self._begun = sample
            self.is_open = self._number in self._drawn

    def _end_window(self, begun: _Sample, ended: _Sample) -> None:
        seconds = ended.at - begun.at
        rates = self._open_rates if self.is_open else self._held_rates
        for name in list(self.suspects):
            if name not in ended.recorded or name not in begun.recorded:
                self.suspects.remove(name)
                continue
            rate = (ended.recorded[name] - begun.recorded[name]) / seconds
            rates[name].append(rate)
            # A capture that goes on as ever without us need not be tried to the end.
            goes_on = not self.is_open and rate >= self._usual[name] / 2
            if goes_on or not matches(self._open_rates[name], self._held_rates[name]):
                self.suspects.remove(name)
        self._number += 1
        self.is_open = False
        self._begun = self._idle_since = None


def matches(open_rates: list[float], held_rates: list[float]) -> bool:
    """Whether recording went with shipping so far.

    Whatever was recorded in six windows, it matches at most one of the draws: in that one the
    three highest are open.
    """
    if not (open_rates and held_rates):
        return True
    return min(open_rates) > CONTRAST * max(held_rates)


def draw(count: int) -> int:
    """A number below `count`, at most 256, each as likely as the others."""
    # Not by `random`, which would stay in memory for this alone.
    while (number := os.urandom(1)[0]) >= 256 // count * count:
        pass
    return number % count


class LoopDetector:
    """Looks at counters now and then, and asks for pauses.

    Attributes:
        watch_seconds: How long rates have to be alike before a trial.
        looping: Captures that record our upload.
    """

    def __init__(
        self, watch_seconds: float = WATCH_SECONDS, draw: Callable[[int], int] = draw
    ) -> None:
        """Nothing is suspected.

        Args:
            watch_seconds: How long rates have to be alike before a trial.
            draw: Gives a number below its argument by lot.
        """
        self.watch_seconds = watch_seconds
        self.looping: set[str] = set()
        self._draw = draw
        self._samples: deque[_Sample] = deque()
        self._watched_from: float | None = None
        self._trial: Trial | None = None
        self._proofs: dict[str, int] = {}
        self._wait_seconds = watch_seconds

    @property
    def paused(self) -> bool:
        """Whether nothing may be shipped for the moment."""
        return self._trial is not None and not self._trial.is_open

    def next_at(self, now: float) -> float:
        """When to look again, at the latest."""
        return self._trial.next_at(now) if self._trial else now + self.watch_seconds / 4

    def observe(
        self, now: float, uploaded: int, recorded: Mapping[str, int], *, sending: bool
    ) -> set[str] | None:
        """Take one look.

        Args:
            now: Monotonic clock.
            uploaded: Bytes sent to the collector so far.
            recorded: Bytes recorded so far, by capture.
            sending: A request to the collector is on its way.

        Returns:
            When a trial ended with this look: the captures whose recording went with shipping.
        """
        sample = _Sample(now, uploaded, dict(recorded))
        trial = self._trial
        if trial is None:
            self._watch(sample)
            return None
        trial.look(sample, sending=sending)
        if not trial.is_over:
            return None
        self._judge(trial)
        self._trial = None
        self._samples.clear()
        self._watched_from = None
        return trial.suspects

    def forget(self, capture_id: str) -> None:
        """The capture is another one now, or gone."""
        self.looping.discard(capture_id)
        self._proofs.pop(capture_id, None)
        if self._trial is not None:
            self._trial.suspects.discard(capture_id)

    def _watch(self, sample: _Sample) -> None:
        samples = self._samples
        if self._watched_from is None:
            self._watched_from = sample.at
        samples.append(sample)
        span = min(self._wait_seconds, self.watch_seconds)
        while len(samples) > 1 and sample.at - samples[1].at >= span:
            samples.popleft()
        if sample.at - self._watched_from < self._wait_seconds:
            return
        suspects = self._suspects(samples[0], sample)
        if suspects:
            window = max(_LEAST_WINDOW_SECONDS, self.watch_seconds * _WINDOW_SHARE)
            self._trial = Trial(suspects, DRAWS[self._draw(len(DRAWS))], window)

    def _suspects(self, first: _Sample, last: _Sample) -> dict[str, float]:
        """Captures that recorded about as much as was uploaded, in bytes per second."""
        seconds = last.at - first.at
        sent = last.uploaded - first.uploaded
        if sent < LEAST_BYTES * seconds / WATCH_SECONDS:
            return {}
        return {
            name: (total - first.recorded[name]) / seconds
            for name, total in last.recorded.items()
            if name in first.recorded
            and name not in self.looping
            and total - first.recorded[name] >= sent * _LEAST_RATIO
        }

    def _judge(self, trial: Trial) -> None:
        proofs = {name: count - 1 for name, count in self._proofs.items() if count > 1}
        for name in trial.suspects:
            proofs[name] = self._proofs.get(name, 0) + 1
        self.looping |= {name for name, count in proofs.items() if count >= PROOFS}
        self._proofs = {name: count for name, count in proofs.items() if count < PROOFS}
        if self._proofs:
            self._wait_seconds = self.watch_seconds / 4
        else:
            longest = self.watch_seconds * _LONGEST_WAIT
            wait = max(self.watch_seconds, self._wait_seconds)
            self._wait_seconds = min(longest, wait * _PATIENCE)
