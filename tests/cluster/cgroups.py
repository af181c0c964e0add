"""The nodes' cgroups: in every hierarchy of version 1 that the machine has, or in version 2."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

MOUNTS_FILE = Path("/proc/self/mounts")


def hierarchies(mounts: str) -> list[Path]:
    """The mount points of all cgroup hierarchies, from the text of /proc/self/mounts.

    On a machine with version 1 hierarchies a version 2 one beside them is left out: it has no
    controllers, and nothing of ours goes there.
    """
    version_1, version_2 = [], []
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[2] == "cgroup":
            version_1.append(Path(fields[1]))
        elif len(fields) >= 3 and fields[2] == "cgroup2":
            version_2.append(Path(fields[1]))
    return version_1 or version_2


def machine_hierarchies() -> list[Path]:
    """The hierarchies of this machine."""
    return hierarchies(MOUNTS_FILE.read_text())


def all_hierarchies(mounts: str) -> list[Path]:
    """Every cgroup mount of either version: where leftovers may be."""
    return [
        Path(fields[1])
        for fields in (line.split() for line in mounts.splitlines())
        if len(fields) >= 3 and fields[2] in ("cgroup", "cgroup2")
    ]


def create(name: str, roots: Iterable[Path] | None = None) -> None:
    """Make a cgroup of that name at the top of every hierarchy."""
    for root in machine_hierarchies() if roots is None else roots:
        group = root / name
        group.mkdir(exist_ok=True)
        # A new cpuset group of version 1 has no processors and no memory, and takes no process.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (root / setting).is_file() and not (group / setting).read_text().strip():
                (group / setting).write_text((root / setting).read_text())


def groups_below(name: str, roots: Iterable[Path] | None = None) -> list[Path]:
    """The cgroups of that name and all below them in every hierarchy, deepest first."""
    if roots is None:
        roots = all_hierarchies(MOUNTS_FILE.read_text())
    found = []
    for root in roots:
        for folder, _, _ in os.walk(root / name, topdown=False):
            found.append(Path(folder))
    return found


def processes_below(name: str, roots: Iterable[Path] | None = None) -> set[int]:
    """The ids of all processes in the cgroups of that name and below."""
    members: set[int] = set()
    for group in groups_below(name, roots):
        # A group may go while we look.
        with contextlib.suppress(OSError):
            members.update(int(line) for line in (group / "cgroup.procs").read_text().split())
    return members


def remove(name: str, roots: Iterable[Path] | None = None) -> list[Path]:
    """Remove the empty cgroups of that name and below; returns those that are still in use."""
    return [group for group in groups_below(name, roots) if not _removed(group)]


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
