"""pcaps of twenty pods into one pcapng, as retrieval does it, beside mergecap.

Both read the same files and write to /dev/null; per core is per CPU second, user and system. Ours
finds and lists the files in the store as well.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import merging
from bench.effort import Effort
from bench.result import Result, say, spread

NAME = "merge"
_GOAL = 400_000
_PEER = "mergecap -F pcapng -I none"
_FRAMES_AND_PACKETS = ((64, 60_000), (1400, 15_000))


def run(effort: Effort) -> Iterator[Result]:
    """One point for each size of frames."""
    for frame_bytes, packets_of_a_pod in _FRAMES_AND_PACKETS:
        with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as folder:
            packets = merging.fill(Path(folder), frame_bytes, packets_of_a_pod)
            yield _measure(Path(folder), f"{frame_bytes} B", packets, effort.of(5, 2))


def _measure(folder: Path, point: str, packets: int, rounds: int) -> Result:
    ours, peer, grown = [], [], []
    for number in range(rounds):
        seconds, mebibytes = _ours(folder)
        ours.append(packets / seconds)
        grown.append(mebibytes)
        peer.append(packets / _mergecap(folder))
        say(
            f"{NAME}: round {number + 1} of {rounds}, {point}: {ours[-1]:,.0f} packets/s per core "
            f"and {mebibytes:.1f} MiB, mergecap {peer[-1]:,.0f}"
        )
    value = statistics.median(ours)
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return Result(
        name=NAME,
        point=point,
        ours=round(value),
        peer=round(statistics.median(peer)),
        peer_name=_PEER,
        ratio=round(ratio, 3),
        unit="packets/s per core",
        goal=f"≥ {_GOAL}",
        met=value >= _GOAL,
        runs=rounds,
        spread=spread(ours),
        peer_spread=spread(peer),
        detail={"packets": packets, "memory_grown_mib": round(max(grown), 1)},
    )


def _ours(folder: Path) -> tuple[float, float]:
    """CPU seconds, and MiB that the process grew by."""
    command = [sys.executable, "-m", "bench.merging", str(folder)]
    seconds, mebibytes = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return seconds, mebibytes


def _mergecap(folder: Path) -> float:
    """CPU seconds."""
    before = merging.cpu_seconds(resource.RUSAGE_CHILDREN)
    pcaps = sorted(str(path) for path in folder.rglob("*.pcap"))
    command = [*_PEER.split(), "-w", os.devnull, *pcaps]
    subprocess.run(command, check=True, capture_output=True)
    return merging.cpu_seconds(resource.RUSAGE_CHILDREN) - before
