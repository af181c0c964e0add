"""The cluster as its users see it: bring it up, find it running, use it, end it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import (
    boot,
    build,
    cleanup,
    control_plane,
    network,
    node_images,
    preflight,
    processes,
    programs,
)
from tests.cluster.commands import run, with_system_path
from tests.cluster.errors import ClusterError
from tests.cluster.layout import (
    NODE_NETWORK,
    NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    Node,
    node_named,
)
from tests.cluster.paths import MARK, STATE
from tests.cluster.progress import Printer, to_stderr

# Written last by a boot: what the running cluster is built of.
_READY_FILE = STATE / "ready.json"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster. All of its state is on disk, so that any process can hold one of these."""

    kubeconfig: Path
    kubectl: Path
    nodes: tuple[Node, ...] = NODES

    @property
    def environment(self) -> dict[str, str]:
        """Variables for programs that shall speak to this cluster, with `kubectl` on their PATH."""
        variables = {
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{self.kubectl.parent}:{os.environ.get('PATH', '')}",
        }
        ours = ",".join(str(each) for each in (NODE_NETWORK, SERVICE_NETWORK, POD_NETWORK))
        for name in ("NO_PROXY", "no_proxy"):
            # A proxy that the machine goes out through does not know the way to us.
            others = os.environ.get(name, "")
            variables[name] = f"{others},{ours}" if others else ours
        return variables

    def kubectl_run(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it printed.

        Raises:
            CommandFailed: kubectl did.
        """
        return run([self.kubectl, *words], env=self.environment, stdin=stdin)

    def run_on_node(
        self, name: str, argv: Sequence[str], *, timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a node's network namespace and wait for its end, whatever its code."""
        return subprocess.run(
            [*network.enter(node_named(name).namespace), *argv],
            env=_marked_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def start_on_node(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in a node's network namespace; the caller ends it, or at last `down`."""
        return subprocess.Popen(
            [*network.enter(node_named(name).namespace), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_marked_environment(),
        )

    def load_images(self, archives: Mapping[str, Path]) -> list[str]:
        """Bring images (name to archive file) into all nodes; returns those that were missing."""
        return node_images.load_images(archives, self.nodes)

    def program_names(self) -> list[str]:
        """The programs that `stop`, `kill`, `start` and `restart` know."""
        return sorted(processes.recorded())

    def log_of(self, program: str) -> Path:
        """The log file of one of the programs."""
        return processes.recorded()[program].program.log_file

    def stop(self, program: str, *, grace_seconds: float = 10) -> None:
        """Ask a program of the cluster to end, and wait; insist after the grace time.

        The API server takes all of it while somebody watches.
        """
        processes.end_recorded(program, grace_seconds=grace_seconds)

    def kill(self, program: str) -> None:
        """End a program of the cluster at once, as a crash would."""
        processes.end_recorded(program, grace_seconds=0)

    def start(self, program: str) -> None:
        """Start a stopped program as it was; returns when it serves.

        Raises:
            BootFailed: it does not, in time.
        """
        record = processes.recorded()[program]
        if not record.is_alive:
            processes.start(record.program)
        boot.wait_until_serving(program)

    def restart(self, program: str, *, grace_seconds: float = 10) -> None:
        """Stop a program and start it again; returns when it serves."""
        self.stop(program, grace_seconds=grace_seconds)
        self.start(program)


def up(printer: Printer = to_stderr) -> Cluster:
    """Boot the cluster, or find it running; builds what is missing first.

    Args:
        printer: Takes the lines of progress.

    Raises:
        MachineNotReady: before anything was touched.
        CommandFailed: a build failed.
        BootFailed: a part did not come up; everything was removed again, the logs were kept.
    """
    running = find_running()
    if running is not None:
        return running
    preflight.check_to_boot()
    build.build_for_cluster(printer)
    with _state_lock():
        # Somebody else may have booted it while we waited.
        running = find_running()
        if running is None:
            boot.boot(printer)
            _READY_FILE.write_text(json.dumps(_built_of()))
    return _cluster()


def down(printer: Printer = to_stderr) -> None:
    """End the cluster and remove every trace of it.

    Raises:
        ClusterError: something could not be removed, or this user may not; the message says what.
    """
    faults = preflight.root_faults(os.geteuid())
    if faults:
        raise ClusterError("; ".join(faults))
    started_at = time.monotonic()
    with _state_lock():
        cleanup.remove_everything()
        STATE.rmdir()
    printer(f"[cluster] down, nothing left ({time.monotonic() - started_at:.1f} s)")


def find_running() -> Cluster | None:
    """The running cluster when it is whole, healthy and built of today's parts; else None."""
    try:
        ready = json.loads(_READY_FILE.read_text())
    except (OSError, ValueError):
        return None
    records = processes.recorded()
    is_whole = set(records) == {program.name for program in boot.all_programs()}
    if not is_whole or not all(record.is_alive for record in records.values()):
        return None
    return _cluster() if ready == _built_of() and boot.api_server_is_ready() else None


def status() -> dict[str, str]:
    """Each program and whether it runs, in words."""
    records = processes.recorded()
    return {name: _in_words(records.get(name)) for name in (p.name for p in boot.all_programs())}


def _in_words(record: processes.Record | None) -> str:
    if record is None:
        return "not started"
    if record.is_alive:
        return f"running, process {record.pid}"
    return f"ended, log {record.program.log_file}"


def _cluster() -> Cluster:
    return Cluster(
        kubeconfig=control_plane.admin_kubeconfig(),
        kubectl=programs.program(programs.KUBERNETES, "kubectl"),
    )


def _built_of() -> dict[str, str]:
    """The keys of the parts; another one means that the running cluster is not today's."""
    keys = {part.name: programs.go_part_key(part) for part in programs.GO_PARTS}
    return {**keys, "pause": node_images.pause_reference()}


def _marked_environment() -> dict[str, str]:
    return {**with_system_path(os.environ), MARK: str(STATE)}


@contextmanager
def _state_lock() -> Iterator[None]:
    """Hold the state folder for ourselves: boots and ends do not overlap.

    The folder itself is locked, so that no lock file is left; since an end removes the folder,
    whoever gets the lock looks whether it is still the same one.
    """
    while True:
        STATE.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(STATE, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return folder.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
