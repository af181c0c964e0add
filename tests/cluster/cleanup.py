"""Ends the cluster without a trace, whether it was shut down in order or killed in the middle.

Nothing here relies on what a program of ours remembers: what is ours is told by the mark in a
process's environment, by the nodes' cgroups, by the state folder in front of a mount point and by
the names of namespaces and links.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.cluster import cgroups, machine, network, processes
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.layout import NODES
from tests.cluster.paths import STATE

MOUNTS_FILE = Path("/proc/self/mountinfo")
_ROUNDS = 50
_PAUSE_SECONDS = 0.05


def ending_order(
    recorded: Mapping[str, int], marked: Iterable[int], contained: Iterable[int]
) -> list[list[int]]:
    """Who is ended, in which order: supervisors before what they would start again.

    Args:
        recorded: Living programs that were written down, name to process id.
        marked: Processes with our mark: the same, and their helpers (shims, network plugins).
        contained: Processes in the nodes' cgroups: the containers.

    Returns:
        Groups of process ids; a group is gone before the next is ended. No id is in two groups.
    """
    kubelets = {pid for name, pid in recorded.items() if name.endswith("kubelet")}
    supervisors = (set(recorded.values()) | set(marked)) - kubelets
    containers = set(contained) - supervisors - kubelets
    return [sorted(group) for group in (kubelets, supervisors, containers) if group]


def mounts_below(mountinfo: str, folder: Path) -> list[Path]:
    """The mount points at and below a folder, deepest first, from the text of mountinfo.

    The later of two mounts on the same point lies on top and comes first.
    """
    # Read from the end: with equal depths the sort keeps the later mount before the earlier.
    lines = (line.split() for line in reversed(mountinfo.splitlines()))
    points = [Path(_unescape(fields[4])) for fields in lines if len(fields) > 4]
    ours = [point for point in points if point.is_relative_to(folder)]
    return sorted(ours, key=lambda point: -len(point.parts))


def remove_everything() -> None:
    """Remove all that is ours; does nothing where nothing is.

    Raises:
        ClusterError: something could not be removed; the message lists it.
    """
    _end_processes()
    _unmount()
    network.remove()
    _remove_cgroups()
    machine.restore()
    machine.empty_state_folder()
    left = leftovers()
    if left:
        raise ClusterError("Could not be removed: " + "; ".join(left))


def leftovers() -> list[str]:
    """Everything of ours that the machine still has, in words; empty after a clean end."""
    found = [f"process {pid}" for pid in sorted(_our_processes())]
    found += [f"mount {point}" for point in _our_mounts()]
    found += network.leftovers()
    for node in NODES:
        found += [f"cgroup {group}" for group in cgroups.groups_below(node.cgroup)]
    if STATE.exists() and any(STATE.iterdir()):
        found.append(f"folder {STATE}")
    return found


def _our_processes() -> set[int]:
    recorded = {record.pid for record in processes.recorded().values() if record.is_alive}
    return recorded | processes.marked_processes() | _contained()


def _contained() -> set[int]:
    members: set[int] = set()
    for node in NODES:
        members |= cgroups.processes_below(node.cgroup)
    return members - {os.getpid()}


def _end_processes() -> None:
    """End ours, again and again: one may have been starting another while we looked."""
    for _ in range(_ROUNDS):
        records = processes.recorded()
        recorded = {name: r.pid for name, r in records.items() if r.is_alive}
        order = ending_order(recorded, processes.marked_processes(), _contained())
        if not order:
            return
        for group in order:
            processes.end(group, grace_seconds=0)
        for pid in recorded.values():
            processes.reap(pid)


def _our_mounts() -> list[Path]:
    return mounts_below(MOUNTS_FILE.read_text(), STATE)


def _unmount() -> None:
    """Unmount what lies below the state folder; lazily, because a dying process may hold it."""
    for _ in range(_ROUNDS):
        points = _our_mounts()
        if not points:
            return
        run(["umount", "--lazy", "--no-canonicalize", *points])


def _remove_cgroups() -> None:
    """Remove the nodes' cgroups; the kernel may need a moment to let go of the last process."""
    for _ in range(_ROUNDS):
        in_use = [group for node in NODES for group in cgroups.remove(node.cgroup)]
        if not in_use:
            return
        time.sleep(_PAUSE_SECONDS)


def _unescape(field: str) -> str:
    """Mount points have blanks and backslashes in octal, see proc_pid_mountinfo(5)."""
    for code, character in (
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", "\\"),
    ):
        field = field.replace(code, character)
    return field
