"""The capture engines: ours as it runs in a pod, and the peers as people run them.

All of them capture the same interface with the same filter and a ring of the same size, on the
same core, and write to the same tmpfs. CPU is the scheduler's own clock of the process, from when
its capture is open until all is written; work of the sender's core, such as filling the ring, is no
part of it.
"""

import os
import re
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import building
from bench.machine import CAPTURING_CORE
from bench.network import INTERFACE, Link
from bench.orders import CAPTURE, swap, the_orders
from bench.traffic import FILTER
from sidecar.ledger import LedgerFile

RING_BYTES: Final = 2 * 2**20
_SETTLE_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """As the engines count it: tcpdump's and dumpcap's megabyte is a million bytes."""

    megabytes: int
    files: int

    @property
    def bytes(self) -> int:
        return self.megabytes * 10**6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine did.

    Attributes:
        captured: Packets that it says it wrote.
        dropped: Packets that it says the kernel had no room for.
        cpu_seconds: User and system time of the process while it captured.
    """

    captured: int
    dropped: int
    cpu_seconds: float


class Engine(ABC):
    """One engine that runs in `folder`."""

    name: str

    def __init__(self, link: Link, folder: Path, rotation: Rotation | None) -> None:
        folder.mkdir(parents=True)
        self._link = link
        self._folder = folder
        self._rotation = rotation
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_before = 0.0

    def start(self) -> None:
        """Start it; returns when it captures."""
        command = ["taskset", "-c", str(CAPTURING_CORE), *self._command()]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._link.in_pod(*command),
                env={"PATH": os.environ["PATH"], **self._variables()},
                stdout=log,
                stderr=log,
            )
        _wait_for(self._is_open, f"{self.name} to open its capture, see {self._log}")
        time.sleep(_SETTLE_SECONDS)
        self._cpu_before = _cpu_seconds(self._process.pid)

    def stop(self) -> Outcome:
        """End it as its users do, after it had the time to write what the kernel holds."""
        process = self._process
        if process is None:
            raise RuntimeError(f"{self.name} was not started")
        time.sleep(_SETTLE_SECONDS)
        spent = _cpu_seconds(process.pid) - self._cpu_before
        process.terminate()
        process.wait()
        self._process = None
        captured, dropped = self._counts()
        return Outcome(captured, dropped, spent)

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @abstractmethod
    def files(self) -> list[Path]:
        """What it wrote, oldest first."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _is_open(self) -> bool: ...

    @abstractmethod
    def _counts(self) -> tuple[int, int]: ...

    def _variables(self) -> dict[str, str]:
        return {}

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _said(self, pattern: str) -> "re.Match[str] | None":
        return re.search(pattern, self._log.read_text(errors="replace"))

    def _said_number(self, pattern: str) -> int:
        match = self._said(pattern)
        if match is None:
            raise RuntimeError(f"{self.name} said no {pattern!r}: {self._log.read_text()}")
        return int(match[1])


class SidecarWorker(Engine):
    """The worker of the sidecar, told by an orders file, without a collector to ship to."""

    name = "nightcap"

    def _command(self) -> list[str]:
        installed = building.sidecar()
        rotation = self._rotation or Rotation(megabytes=10**6, files=10)
        (self._folder / "spool").mkdir()
        swap(self._folder / "orders", the_orders(FILTER, rotation.bytes, rotation.files))
        return [installed.python, "-I", "-S", "-E", "-B", str(installed.script)]

    def _variables(self) -> dict[str, str]:
        return {
            "NIGHTCAP_ORDERS_DIR": str(self._folder / "orders"),
            "NIGHTCAP_SPOOL_DIR": str(self._folder / "spool"),
            # Room for all files; how the spool's own ceiling works is no part of these figures.
            "NIGHTCAP_SPOOL_BYTES": str(10**13),
        }

    def _is_open(self) -> bool:
        return (self._folder / "spool" / ".open").exists()

    def _counts(self) -> tuple[int, int]:
        ledger = LedgerFile(str(self._folder / "spool" / CAPTURE)).read()
        return ledger.packets, ledger.dropped

    def files(self) -> list[Path]:
        return sorted((self._folder / "spool" / CAPTURE / INTERFACE).glob("*.pcap"))


class Tcpdump(Engine):
    """`tcpdump -w`, with `-C` and `-W` where files rotate."""

    name = "tcpdump"

    def _command(self) -> list[str]:
        rotation = self._rotation
        rotate = ["-C", str(rotation.megabytes), "-W", str(rotation.files)] if rotation else []
        # -Z: else it becomes another user, who may not write here.
        return [
            "tcpdump", "-n", "-i", INTERFACE, "-B", str(RING_BYTES // 1024), "-Z", "root",
            "-w", str(self._folder / "capture"), *rotate, FILTER,
        ]  # fmt: skip

    def _is_open(self) -> bool:
        return self._said("listening on") is not None

    def _counts(self) -> tuple[int, int]:
        return (
            self._said_number(r"(\d+) packets? captured"),
            self._said_number(r"(\d+) packets? dropped by kernel"),
        )

    def files(self) -> list[Path]:
        return sorted(self._folder.glob("capture*"))


class Dumpcap(Engine):
    """`dumpcap -P` (pcap, as the others write), with `-b filesize` where files rotate."""

    name = "dumpcap"

    def _command(self) -> list[str]:
        rotation = self._rotation
        rotate = (
            ["-b", f"filesize:{rotation.megabytes * 1000}", "-b", f"files:{rotation.files}"]
            if rotation
            else []
        )
        return [
            "dumpcap", "-q", "-P", "-i", INTERFACE, "-B", str(RING_BYTES // 2**20),
            "-w", str(self._folder / "capture.pcap"), *rotate, "-f", FILTER,
        ]  # fmt: skip

    def _is_open(self) -> bool:
        return self._said("File: ") is not None

    def _counts(self) -> tuple[int, int]:
        return (
            self._said_number(r"Packets captured: (\d+)"),
            self._said_number(r"received/dropped on interface .*?: \d+/(\d+)"),
        )

    def files(self) -> list[Path]:
        return sorted(self._folder.glob("capture*"))


def _cpu_seconds(pid: int) -> float:
    """What all threads of a process have run: nanoseconds, where `times` counts ticks."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in threads) / 1e9


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {_PATIENCE_SECONDS:g} s for {what}")
        time.sleep(0.01)
