"""merge: pcaps of twenty pods into one pcapng, beside mergecap."""

from collections.abc import Iterator
from typing import Any

from bench import merge
from bench.effort import Effort
from bench.result import Result


def run(effort: Effort) -> Iterator[Result]:
    """One result for each size of frames."""
    for point in merge.points(effort.of(5, 2)):
        yield _result(point)


def _result(point: dict[str, Any]) -> Result:
    return Result(**{name: _frozen(value) for name, value in point.items() if name != "machine"})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
