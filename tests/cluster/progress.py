"""Progress in plain lines on standard error: which part, how many, how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Printer = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Print one line at once, also where nobody watches a terminal."""
    print(line, file=sys.stderr, flush=True)


def silent(line: str) -> None:
    """Drop the line."""


class Progress:
    """Counts the parts of a longer work and says when each begins and ends.

    Several threads may report at the same time. A part that takes long says so every half minute,
    so that nobody takes a build for a hang.
    """

    def __init__(self, title: str, total: int, printer: Printer = to_stderr) -> None:
        self._title = title
        self._total = total
        self._printer = printer
        self._begun = 0
        self._lock = threading.Lock()
        self._started_at = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Report one part around the work done inside the block."""
        with self._lock:
            self._begun += 1
            place = f"[{self._title} {self._begun}/{self._total}]"
        self._printer(f"{place} {name} ...")
        started_at = time.monotonic()
        ended = threading.Event()
        beat = threading.Thread(
            target=self._say_still_busy, args=(place, name, started_at, ended), daemon=True
        )
        beat.start()
        outcome = "failed after"
        try:
            yield
            outcome = "done in"
        finally:
            ended.set()
            self._printer(f"{place} {name}: {outcome} {time.monotonic() - started_at:.1f} s")

    def finish(self, sentence: str) -> None:
        """Close the work with a sentence and the time it took in all."""
        self._printer(f"[{self._title}] {sentence} ({time.monotonic() - self._started_at:.1f} s)")

    def _say_still_busy(
        self, place: str, name: str, started_at: float, ended: threading.Event
    ) -> None:
        while not ended.wait(timeout=30):
            self._printer(f"{place} {name}: {time.monotonic() - started_at:.0f} s so far")
