"""Words and times as statuses carry them: short lists of names, cut messages, timestamps."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

_LAST_SECOND: Final = 253402300799.0
_NAMED: Final = 5
_MAX_MESSAGE: Final = 1500


def names_of(names: Collection[str]) -> str:
    """The first few of many names, and how many there are besides."""
    shown = ", ".join(sorted(names)[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def cut(text: str) -> str:
    """A text of at most as many characters as a message may have."""
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"


def timestamp(at: float) -> str:
    """Seconds since the epoch as the API writes them."""
    # A schedule can lie beyond what a calendar of four digits holds.
    at = min(max(at, 0.0), _LAST_SECOND)
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
