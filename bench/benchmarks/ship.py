"""ship: segments of 50 sidecars over TLS into the collector, acknowledged and durable."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.effort import Effort
from bench.result import Result, spread
from bench.shipping import Spent, collector, measure, progress

SENDERS = 50
SLOW_SENDERS = 400
GOAL_MB = 100


def run(effort: Effort) -> Iterator[Result]:
    """MB/s per core; and how many quiet sidecars one core carries."""
    yield _fast(effort.of(10, 2), effort.of(4, 1))
    yield _fast(effort.of(10, 2), effort.of(2, 1), on_objects=True)
    yield _slow(effort.of(5, 1), effort.of(20, 8))


def _fast(rounds: int, segments: int, *, on_objects: bool = False) -> Result:
    rates: list[float] = []
    memory: list[float] = []
    put_off: list[float] = []
    seconds: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name,
        collector(Path(name), SENDERS, on_objects=on_objects) as installation,
    ):
        measure(installation, "fast", SENDERS, 1)  # files, connections and buffers are made
        for number in range(rounds):
            spent = measure(installation, "fast", SENDERS, segments)
            progress(f"round {number + 1} of {rounds}", spent)
            rates.append(spent.said["bytes"] / spent.cpu_seconds / 1e6)
            memory.append(spent.rss_after)
            put_off.append(spent.said["put_off"])
            seconds.append(round(spent.said["seconds"], 1))
    value = sorted(rates)[len(rates) // 2]
    return Result(
        name="ship",
        point=f"{SENDERS} sidecars, 4 MiB appends" + (", S3" if on_objects else ""),
        ours=round(value, 1),
        unit="MB/s per core, durable",
        goal="said" if on_objects else f"≥ {GOAL_MB}",
        met=on_objects or value >= GOAL_MB,
        runs=rounds,
        spread=spread(rates),
        detail={
            "rss_mib": [round(each) for each in memory],
            "seconds": seconds,
            "answers_503": put_off,
        },
    )


def _slow(rounds: int, seconds: int) -> Result:
    carried: list[float] = []
    rounds_spent: list[Spent] = []
    with (
        tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name,
        collector(Path(name), SLOW_SENDERS) as installation,
    ):
        for number in range(rounds):
            spent = measure(installation, "slow", SLOW_SENDERS, seconds, 1000)
            progress(f"round {number + 1} of {rounds}", spent)
            carried.append(SLOW_SENDERS * spent.said["seconds"] / spent.cpu_seconds)
            rounds_spent.append(spent)
    value = sorted(carried)[len(carried) // 2]
    return Result(
        name="ship",
        point="sidecars at 1 kB/s",
        ours=round(value),
        unit="sidecars per core",
        goal="said",
        met=True,
        runs=rounds,
        spread=spread(carried),
        detail={
            "cpu_ms_per_append": [
                round(s.cpu_seconds / s.said["appends"] * 1000, 3) for s in rounds_spent
            ],
            "rss_mib": [round(s.rss_after) for s in rounds_spent],
        },
    )
