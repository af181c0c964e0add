"""From the swap of the orders file to the open capture, with the dormant program in between."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench import building
from bench.effort import Effort
from bench.machine import memory_folder
from bench.network import Link, joined
from bench.orders import CAPTURE, swap, the_orders
from bench.result import Result, alone, quantile, say
from bench.traffic import FILTER
from bench.watching import watching

NAME = "wake-latency"
_GOAL_MS = 60.0


def run(effort: Effort) -> Iterator[Result]:
    """The marker `.open` is written when every capture of the orders is open."""
    with joined() as link, memory_folder() as folder:
        samples = _samples(link, folder, effort.of(40, 5))
    yield alone(
        NAME,
        samples,
        most=_GOAL_MS,
        goal=f"≤ {_GOAL_MS:g} ms median",
        unit="ms",
        detail={
            "p95": round(quantile(samples, 0.95), 1),
            "samples": [round(s, 1) for s in samples],
        },
    )


def _samples(link: Link, folder: Path, count: int) -> list[float]:
    installed = building.sidecar()
    orders, spool = folder / "orders", folder / "spool"
    spool.mkdir()
    swap(orders, "")
    variables = {
        "NIGHTCAP_ORDERS_DIR": str(orders),
        "NIGHTCAP_SPOOL_DIR": str(spool),
        "NIGHTCAP_WORKER_PYTHON": installed.python,
        "NIGHTCAP_WORKER_SCRIPT": str(installed.script),
    }
    samples = []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            link.in_pod(str(installed.dormant)), env=variables, stderr=log, stdout=log
        )
        try:
            time.sleep(0.5)
            for number in range(count + 1):
                with watching(spool) as watch:
                    changed = swap(orders, the_orders(FILTER))
                    opened = watch.wait_for(spool / ".open")
                # The first one reads Python from the disk.
                if number:
                    samples.append((opened - changed) * 1000)
                    say(f"{NAME}: sample {number} of {count}: {samples[-1]:.1f} ms")
                time.sleep(0.5)  # let it import what it needs for shipping
                _put_to_sleep(process.pid, orders, spool)
        finally:
            process.terminate()
            process.wait(10)
    return samples


def _put_to_sleep(pid: int, orders: Path, spool: Path) -> None:
    """Take the orders away, and wait until the worker has gone."""
    swap(orders, "")
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/task/{pid}/children").read_text() or (spool / CAPTURE).exists():
        if time.monotonic() > end:
            raise TimeoutError("the worker did not end within 10 s after its orders went")
        time.sleep(0.05)
    (spool / ".open").unlink(missing_ok=True)
    time.sleep(0.2)
