"""One measured point, and how it is written down."""

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import machine


@dataclass(frozen=True, slots=True)
class Result:
    """One point of one row of the table.

    Attributes:
        name: The benchmark's name.
        point: Which point of it, such as "64 B"; empty where there is one only.
        ours, peer: Medians, in `unit`; the peer's is None where there is none.
        ratio: Median of the paired runs' ratios.
        goal: As DESIGN has it.
        met: Whether it was reached.
        runs: How many runs (or samples) `ours` is the median of.
        spread: Lowest and highest run of ours, and of the peer's.
        detail: What else was seen, such as the kernel's drops of each engine.
    """

    name: str
    ours: float
    unit: str
    goal: str
    met: bool
    runs: int
    point: str = ""
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    peer_spread: tuple[float, float] | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    machine: str = field(default_factory=machine.describe)

    def line(self) -> str:
        """The result as one line of JSON."""
        value = asdict(self)
        first = ("name", "point", "ours", "peer", "peer_name", "ratio", "unit", "goal", "met")
        return json.dumps({name: value[name] for name in first} | value, ensure_ascii=False)


def paired(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    *,
    peer_name: str,
    most: float,
    goal: str,
    unit: str,
    point: str = "",
    detail: dict[str, Any] | None = None,
) -> Result:
    """A result beside a peer that ran in the same rounds.

    Args:
        name: As in `Result`; so are the arguments that are not named here.
        ours: One value for each round.
        peer: The same, in the same order.
        most: The ratio that is the goal.
    """
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return Result(
        name=name,
        point=point,
        ours=_short(statistics.median(ours)),
        peer=_short(statistics.median(peer)),
        peer_name=peer_name,
        ratio=_short(ratio),
        unit=unit,
        goal=goal,
        met=ratio <= most,
        runs=len(ours),
        spread=spread(ours),
        peer_spread=spread(peer),
        detail=detail or {},
    )


def alone(
    name: str,
    samples: Sequence[float],
    *,
    most: float,
    goal: str,
    unit: str,
    point: str = "",
    detail: dict[str, Any] | None = None,
) -> Result:
    """A result without a peer: the median of the samples against a ceiling."""
    value = statistics.median(samples)
    return Result(
        name=name,
        point=point,
        ours=_short(value),
        unit=unit,
        goal=goal,
        met=value <= most,
        runs=len(samples),
        spread=spread(samples),
        detail=detail or {},
    )


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest."""
    return _short(min(samples)), _short(max(samples))


def quantile(samples: Sequence[float], share: float) -> float:
    """The value that `share` of the samples do not exceed (nearest rank)."""
    ranked = sorted(samples)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _short(value: float) -> float:
    """Four digits that matter: no more are known."""
    return float(f"{value:.4g}")


def say(text: str) -> None:
    """Progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
