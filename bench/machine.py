"""What a figure was measured on, without naming the machine; and the places it is measured in."""

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SENDING_CORE: Final = 0
CAPTURING_CORE: Final = 1


def describe() -> str:
    """Processor, cores, memory, kernel."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    # What follows the numbers tells who built it.
    kernel = re.match(r"[\d.]+", platform.release())
    return ", ".join(
        [
            f"{os.cpu_count()} cores {model[1].strip() if model else platform.machine()}",
            f"{int(total[1]) / 2**20:.0f} GiB" if total else "memory unknown",
            f"{'virtual, ' if _is_virtual() else ''}Linux {kernel[0] if kernel else 'unknown'}",
        ]
    )


def _is_virtual() -> bool:
    return " hypervisor" in Path("/proc/cpuinfo").read_text()


def busy_share() -> float:
    """What others took of the machine over the last minute, as a share of its cores.

    A figure taken while this is above some percent is noise.
    """
    return os.getloadavg()[0] / (os.cpu_count() or 1)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder on a tmpfs of its own, so that no disk takes part."""
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)


@contextmanager
def disk_folder() -> Iterator[Path]:
    """A folder on the machine's own disk, as the volume is that a pod's spool lies on."""
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-", dir="/var/tmp") as folder:
        yield Path(folder)
