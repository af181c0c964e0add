"""Dormant sidecars, as many as asked for, each with folders of its own."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import building
from bench.orders import swap

_SETTLE_SECONDS = 1.0


@contextmanager
def sleeping(count: int) -> Iterator[list[int]]:
    """Start them without orders; yields their process ids when they sleep."""
    program = building.sidecar().dormant
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as folder:
        try:
            for number in range(count):
                place = Path(folder, str(number))
                (place / "spool").mkdir(parents=True)
                swap(place / "orders", "")
                variables = {
                    "NIGHTCAP_ORDERS_DIR": str(place / "orders"),
                    "NIGHTCAP_SPOOL_DIR": str(place / "spool"),
                }
                processes.append(subprocess.Popen([program], env=variables))
            time.sleep(_SETTLE_SECONDS)
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(10)


def proc_number(pid: int, file: str, name: str) -> int:
    """One number out of a file below /proc/PID whose lines are `name: number`."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise LookupError(f"/proc/{pid}/{file} has no {name}")
