"""The cluster's processes: started with a mark, recorded by id and start time, ended by id.

A process id alone may have gone to somebody else since it was written down, so it only counts
together with the start time. What was recorded nowhere (a crash in between) is found by its mark
in the environment. Nothing is ever ended by its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.cluster.commands import with_system_path
from tests.cluster.network import enter
from tests.cluster.paths import MARK, STATE

PROC = Path("/proc")
LOG_TAIL_LINES = 25


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: enough to start it again as it was."""

    name: str
    argv: tuple[str, ...]
    namespace: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log_file(self) -> Path:
        return STATE / "logs" / f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class Record:
    """A program that was started: which process it is."""

    program: Program
    pid: int
    start_time: int

    @property
    def is_alive(self) -> bool:
        return start_time(self.pid) == self.start_time


def records_folder() -> Path:
    """Where running programs are written down, one file each."""
    return STATE / "processes"


def start(program: Program) -> Record:
    """Start a program in its network namespace, detached from us, and write it down."""
    program.log_file.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        # Nothing of the caller's: a proxy or a debugging switch of theirs must not get in.
        **with_system_path({}),
        **program.environment,
        MARK: str(STATE),
    }
    with program.log_file.open("ab") as log:
        process = subprocess.Popen(
            [*enter(program.namespace), *program.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            # A session of its own: an interrupt at the terminal is for us alone.
            start_new_session=True,
        )
    # nsenter replaces itself by the program, so the id stays.
    record = Record(program, process.pid, start_time(process.pid) or 0)
    _write(record)
    # It outlives us on purpose; this keeps Popen from warning about that.
    process.returncode = 0
    return record


def recorded() -> dict[str, Record]:
    """All programs written down, by name."""
    found = {}
    for file in sorted(records_folder().glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, OSError):
            record = _read(file)
            found[record.program.name] = record
    return found


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when it is gone or only a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def marked_processes() -> set[int]:
    """The ids of all living processes that carry our mark."""
    needle = f"{MARK}={STATE}".encode()
    found = set()
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if needle in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    # Whoever runs us inside the mark (a test that tests us) is not to be ended by us.
    return found - {os.getpid()}


def end(pids: Iterable[int], *, grace_seconds: float) -> None:
    """End processes: ask first, insist after the grace time; returns when all are gone.

    Holds every process by a descriptor, so that a signal cannot reach a newcomer with an old id.
    """
    held = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            held[os.pidfd_open(pid)] = pid
    try:
        if grace_seconds > 0:
            _signal(held, signal.SIGTERM)
            held_gone = _wait(held, grace_seconds)
        else:
            held_gone = set()
        left = [descriptor for descriptor in held if descriptor not in held_gone]
        _signal(left, signal.SIGKILL)
        _wait(left, 5)
    finally:
        for descriptor in held:
            os.close(descriptor)


def end_recorded(name: str, *, grace_seconds: float) -> Program:
    """End a program that was written down; returns it, so that it can be started again."""
    record = recorded()[name]
    if record.is_alive:
        end([record.pid], grace_seconds=grace_seconds)
    reap(record.pid)
    return record.program


def log_tail(program: Program) -> str:
    """The last lines of a program's log."""
    with contextlib.suppress(OSError):
        lines = program.log_file.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])
    return "(no log)"


def _signal(descriptors: Iterable[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def _wait(descriptors: Iterable[int], seconds: float) -> set[int]:
    """Wait until the processes have ended or the time is over; returns those that have ended."""
    poller = select.poll()
    left = set(descriptors)
    for descriptor in left:
        poller.register(descriptor, select.POLLIN)
    gone: set[int] = set()
    deadline = time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(remaining * 1000):
            poller.unregister(descriptor)
            left.discard(descriptor)
            gone.add(descriptor)
    return gone


def reap(pid: int) -> None:
    """Collect the exit state of a child of ours, which else stays a zombie until we end."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _write(record: Record) -> None:
    file = records_folder() / f"{record.program.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(record), indent=2))
    unfinished.rename(file)


def _read(file: Path) -> Record:
    raw = json.loads(file.read_text())
    words: Sequence[str] = raw["program"]["argv"]
    program = Program(
        name=raw["program"]["name"],
        argv=tuple(words),
        namespace=raw["program"]["namespace"],
        environment=raw["program"]["environment"],
    )
    return Record(program, raw["pid"], raw["start_time"])
