"""Waiting for what comes to pass by itself: as short as it takes, and long on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.01


def eventually(
    holds: Callable[[], T],
    what: str = "what was waited for",
    *,
    seconds: float = _PATIENCE_SECONDS,
    said: Callable[[], str] = str,
) -> T:
    """Ask until the answer is true; that answer.

    Args:
        holds: Asked again and again.
        what: Named when it never is.
        seconds: How long; generous, as only a failure takes so long.
        said: What explains a failure, such as logs.

    Raises:
        AssertionError: with `what` and what `said` says.
    """
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{said()}"
        time.sleep(_PAUSE_SECONDS)
    return found
