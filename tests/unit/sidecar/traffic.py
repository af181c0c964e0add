"""A pod as the loop detector sees it: an application's traffic, and an upload that may return."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from nightcap.contract.uploads import MAX_BODY_BYTES
from sidecar.loop import LoopDetector

Traffic = Callable[[float], float]
"""Bytes that the application has caused up to a time, in seconds; never falls."""


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - the same each time


def steady(rate: float) -> Traffic:
    return lambda now: rate * now


def bursts(size: float, *, period: float, share: float, phase: float) -> Traffic:
    """So many bytes in the first `share` of each period, and nothing in the rest of it."""

    def sent(now: float) -> float:
        whole, part = divmod(now + phase * period, period)
        return size * (whole + min(1.0, part / (share * period)))

    return sent


def poisson(random: Random, *, seconds: float, gap: float, size: float) -> Traffic:
    """Bursts at random: `gap` apart on average, up to twice `size` each."""
    total, at = 0.0, 0.0
    marks = []
    while at < seconds:
        at += random.expovariate(1 / gap)
        total += random.uniform(0, 2 * size)
        marks.append((at, total))

    index = 0

    def sent(now: float) -> float:
        nonlocal index
        if index and marks[index - 1][0] > now:
            index = 0
        while index < len(marks) and marks[index][0] <= now:
            index += 1
        return marks[index - 1][1] if index else 0.0

    return sent


def both(first: Traffic, second: Traffic) -> Traffic:
    return lambda now: first(now) + second(now)


@dataclass
class Pod:
    """One capture, its worker and its collector.

    Attributes:
        gain: How many bytes come back and are recorded for each byte that is uploaded.
        pace: Seconds between two uploads, as the collector wants it.
        bandwidth: Of the way to the collector, in bytes per second.
        late: Seconds, at most, that a look comes later than asked for.
    """

    application: Traffic
    random: Random
    gain: float = 0.0
    pace: float = 1.0
    bandwidth: float = 50e6
    latency: float = 0.02
    late: float = 0.0
    step: float = 0.05
    watch_seconds: float = 10.0
    held_seconds: float = 0.0
    found_at: float = math.inf
    trials: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> LoopDetector:
        """Let it live so long, or until its capture is taken for a loop."""
        detector = LoopDetector(self.watch_seconds, self.random.randrange)
        returned = recorded = readable = acked = 0.0
        request, begun, ends, next_at, flush_at = 0.0, 0.0, math.inf, 0.0, 0.0
        look_at = now = 0.0
        was_paused = False
        while now < seconds and not detector.looping:
            before = now
            # Nothing happens between two looks that could not be computed then, except uploads.
            now = before + self.step if self.gain else max(look_at, before + 0.01)
            if request:
                part = min(now, ends) - max(before, begun)
                returned += self.gain * request * max(0.0, part) / (ends - begun)
            if now >= ends:
                acked += request
                next_at = ends + (0.0 if readable - acked >= MAX_BODY_BYTES else self.pace)
                request, ends = 0.0, math.inf
            # The kernel hands packets over ten times a second.
            handed = math.floor(now * 10) / 10
            recorded = max(recorded, self.application(handed) + returned)
            if now >= flush_at:
                readable, flush_at = recorded, now + 0.5
            if now >= look_at:
                counts = {"a": int(recorded), "narrow": 100}
                detector.observe(now, int(acked), counts, sending=bool(request))
                look_at = min(now + 1, detector.next_at(now)) + self.random.uniform(0, self.late)
                if detector.paused and not was_paused:
                    self.trials.append(now)
                if was_paused and not detector.paused:
                    next_at = 0.0
                was_paused = detector.paused
            if detector.paused:
                self.held_seconds += now - before
            elif not request and readable > acked and now >= next_at:
                request = min(MAX_BODY_BYTES, readable - acked)
                begun, ends = now, now + self.latency + request / self.bandwidth
        if detector.looping:
            self.found_at = now
        return detector
