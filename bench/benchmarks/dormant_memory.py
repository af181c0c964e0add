"""What a sidecar without orders takes of its node's memory."""

from collections.abc import Iterator
from statistics import fmean

from bench.effort import Effort
from bench.result import Result, alone, say
from bench.sleepers import proc_number, sleeping

NAME = "dormant-memory"
_SLEEPERS = 20
_GOAL_MB = 0.5


def run(effort: Effort) -> Iterator[Result]:
    """Mean PSS of 20 at once: pages that they share are divided among them."""
    means, private = [], []
    for _ in range(effort.of(5, 2)):
        with sleeping(_SLEEPERS) as pids:
            means.append(fmean(proc_number(pid, "smaps_rollup", "Pss") / 1000 for pid in pids))
            private.append(
                fmean(proc_number(pid, "smaps_rollup", "Private_Dirty") / 1000 for pid in pids)
            )
        say(f"{NAME}: mean PSS of {_SLEEPERS}: {means[-1]:.3f} MB")
    yield alone(
        NAME,
        means,
        most=_GOAL_MB,
        goal=f"≤ {_GOAL_MB} MB",
        unit="MB, mean PSS of 20",
        detail={"private_dirty_mb": round(fmean(private), 4)},
    )
