"""Words and times as statuses carry them: short lists of names, cut messages, timestamps."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Final

from nightcap.listing import first_of

_LAST_SECOND: Final = 253402300799.0
_NAMED: Final = 5
_MAX_MESSAGE: Final = 1500


def names_of(names: Collection[str]) -> str:
    """The first few of many names, and how many there are besides."""
    return first_of(sorted(names), _NAMED)


def by_reason(named: Iterable[tuple[str, str]]) -> str:
    """Which are so for which reason, each reason once, in the order of their text.

    Args:
        named: (reason, name).
    """
    why: dict[str, list[str]] = {}
    for reason, name in named:
        why.setdefault(reason, []).append(name)
    return "; ".join(f"{names_of(names)}: {reason}" for reason, names in sorted(why.items()))


def cut(text: str) -> str:
    """A text of at most as many characters as a message may have."""
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"


def timestamp(at: float) -> str:
    """Seconds since the epoch as the API writes them."""
    # A schedule can lie beyond what a calendar of four digits holds.
    at = min(max(at, 0.0), _LAST_SECOND)
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
