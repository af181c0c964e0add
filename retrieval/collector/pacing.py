"""How often sidecars are to come: seldomer before the collector has too much to do. Pure.

A sidecar that waits longer sends more at a time, so that the same bytes cost fewer requests;
one with a full body waiting does not wait at all. So what is shed is the cost of many small
appends, and what it costs is the delay at which packets are seen live.
"""

import threading
from typing import Final

MOST_SECONDS: Final = 30.0
"""As often as a heartbeat: seldomer would look like silence."""
BUSY_SHARE: Final = 0.7
CALM_SHARE: Final = 0.4
_UP: Final = 1.5
_DOWN: Final = 0.8


def next_pace(pace_seconds: float, busy_share: float, least_seconds: float) -> float:
    """The pace from now on.

    Args:
        pace_seconds: The pace so far.
        busy_share: CPU seconds that the collector took of each second since the last time; one
            is a whole core, and all that its interpreter can use.
        least_seconds: The pace of a collector that has little to do; the store says it.
    """
    if busy_share > BUSY_SHARE:
        return max(least_seconds, min(MOST_SECONDS, pace_seconds * _UP))
    if busy_share < CALM_SHARE:
        return max(least_seconds, pace_seconds * _DOWN)
    return max(least_seconds, pace_seconds)


class Pace:
    """The pace as it is now; asked with every answer, judged every other second."""

    LOOK_SECONDS: Final = 2.0

    def __init__(self, least_seconds: float) -> None:
        self.seconds = least_seconds
        self._least = least_seconds
        self._looked_at = float("-inf")
        self._cpu_seconds = 0.0
        self._judging = threading.Lock()

    def look(self, now: float, cpu_seconds: float) -> float:
        """Judge anew when it is time.

        Args:
            now: A monotonic clock.
            cpu_seconds: What the process has taken of all cores so far.
        """
        if now - self._looked_at < self.LOOK_SECONDS or not self._judging.acquire(blocking=False):
            return self.seconds
        try:
            self._judge(now, cpu_seconds)
        finally:
            self._judging.release()
        return self.seconds

    def _judge(self, now: float, cpu_seconds: float) -> None:
        passed = now - self._looked_at
        if passed < self.LOOK_SECONDS:
            return  # another thread was faster
        if passed != float("inf"):
            busy_share = (cpu_seconds - self._cpu_seconds) / passed
            self.seconds = next_pace(self.seconds, busy_share, self._least)
        self._looked_at, self._cpu_seconds = now, cpu_seconds
