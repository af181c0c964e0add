"""zip: one GiB of segments as files.zip, without TLS, beside `cat` into a socket and nginx."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import building
from bench.effort import Effort
from bench.result import Result, say, spread
from bench.zips import Served, cat, fill, nginx, ours

GOAL_MB = 500


def run(effort: Effort) -> Iterator[Result]:
    """One point for each peer; ours is measured in the same rounds."""
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name:
        folder = Path(name)
        total = fill(folder, effort.of(100, 10))
        servers: dict[str, Callable[[], Served]] = {
            "ours": functools.partial(ours, folder),
            "cat into a socket": functools.partial(cat, folder),
        }
        if (program := building.nginx()) is not None:
            servers["nginx, sendfile, the same files"] = functools.partial(nginx, program, folder)
        else:
            say("nginx is not installed: no figure beside it")
        rates: dict[str, list[float]] = {name: [] for name in servers}
        grown: list[float] = []
        for number in range(effort.of(5, 2)):
            for name, serve in servers.items():
                served = serve()
                rates[name].append(served.sent_bytes / served.cpu_seconds / 1e6)
                if name == "ours":
                    grown.append(served.grown_mib)
                say(f"round {number + 1}: {name} {rates[name][-1]:,.0f} MB/s per core")
    mine = sorted(rates["ours"])
    value = mine[len(mine) // 2]
    for name, others in rates.items():
        if name != "ours":
            pairs = sorted(a / b for a, b in zip(rates["ours"], others, strict=True))
            yield Result(
                name="zip",
                point="beside " + name.split()[0].rstrip(","),
                ours=round(value),
                peer=round(sorted(others)[len(others) // 2]),
                peer_name=name,
                ratio=round(pairs[len(pairs) // 2], 3),
                unit="MB/s per core",
                goal=f"≥ {GOAL_MB}",
                met=value >= GOAL_MB,
                runs=len(mine),
                spread=spread(mine),
                peer_spread=spread(others),
                detail={"bytes": total, "grown_mib": [round(each, 1) for each in grown]},
            )
