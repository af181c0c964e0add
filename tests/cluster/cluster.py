"""Boots the cluster, finds a running one, ends it; and what tests do with a running one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster import (
    api,
    build,
    cgroups,
    cleanup,
    control_plane,
    machine,
    network,
    node,
    node_images,
    preflight,
    processes,
    programs,
)
from tests.cluster.commands import run
from tests.cluster.errors import BootFailed, ClusterError
from tests.cluster.layout import CONTROL_PLANE, NODES, Node, node_named
from tests.cluster.paths import MARK, STATE
from tests.cluster.processes import Program
from tests.cluster.progress import Printer, Progress, to_stderr

BOOT_SECONDS = 90
_POLL_SECONDS = 0.05
_READY_FILE = STATE / "ready.json"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster. All of its state is on disk, so that any process can hold one of these."""

    kubeconfig: Path
    kubectl: Path
    nodes: tuple[Node, ...] = NODES

    @property
    def environment(self) -> dict[str, str]:
        """Variables for programs that shall speak to this cluster with `kubectl` on their PATH."""
        path = os.environ.get("PATH", "")
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.kubectl.parent}:{path}"}

    def kubectl_run(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it printed.

        Raises:
            CommandFailed: kubectl did.
        """
        return run([self.kubectl, *words], env={"KUBECONFIG": str(self.kubeconfig)}, stdin=stdin)

    def run_on_node(
        self, name: str, argv: Sequence[str], *, timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a node's network namespace and wait for its end, whatever its code."""
        return subprocess.run(
            [*network.enter(node_named(name).namespace), *argv],
            env={**os.environ, MARK: str(STATE)},
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def start_on_node(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in a node's network namespace; the caller ends it, `down` at the latest.

        The last word holds for whatever the command starts too.
        """
        return subprocess.Popen(
            [*network.enter(node_named(name).namespace), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, MARK: str(STATE)},
        )

    def load_images(self, archives: Mapping[str, Path]) -> list[str]:
        """Bring images (name to archive file) into all nodes; returns those that were missing."""
        return node_images.load_images(archives, self.nodes)

    def program_names(self) -> list[str]:
        """The programs that `stop`, `kill`, `start` and `restart` know."""
        return sorted(processes.recorded())

    def stop(self, program: str) -> None:
        """Ask a program of the cluster to end, and wait; insist after ten seconds."""
        processes.end_recorded(program, grace_seconds=10)

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
        check = _CHECKS.get(program)
        if check is not None:
            _wait_for(program, check, time.monotonic() + BOOT_SECONDS)

    def restart(self, program: str) -> None:
        """Stop a program and start it again; returns when it serves."""
        self.stop(program)
        self.start(program)


def up(printer: Printer = to_stderr) -> Cluster:
    """Boot the cluster, or find it running; builds what is missing first.

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
        if running is not None:
            return running
        _boot(printer)
        return _cluster()


def down(printer: Printer = to_stderr) -> None:
    """End the cluster and remove every trace of it.

    Raises:
        MachineNotReady: this user may not.
        ClusterError: something could not be removed; the message lists it.
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
    if not _READY_FILE.exists():
        return None
    records = processes.recorded()
    if set(records) != {program.name for program in all_programs()}:
        return None
    if json.loads(_READY_FILE.read_text()) != _built_of():
        return None
    if not all(record.is_alive for record in records.values()):
        return None
    return _cluster() if api.is_ready(control_plane.PKI) else None


def all_programs() -> list[Program]:
    """Every program of a running cluster."""
    return [
        control_plane.etcd(),
        control_plane.api_server(),
        *(node.containerd(n) for n in NODES),
        *_after_the_api_server(),
    ]


def status() -> dict[str, str]:
    """Each program and whether it runs, in words."""
    records = processes.recorded()
    return {program.name: _in_words(records.get(program.name)) for program in all_programs()}


def _in_words(record: processes.Record | None) -> str:
    if record is None:
        return "not started"
    return (
        f"running, process {record.pid}"
        if record.is_alive
        else f"ended, log {record.program.log_file}"
    )


def _after_the_api_server() -> list[Program]:
    return [
        *(node.kubelet(n) for n in NODES),
        control_plane.controller_manager(),
        control_plane.scheduler(),
        *(node.kube_proxy(n) for n in NODES),
        control_plane.cluster_dns(),
    ]


def _cluster() -> Cluster:
    return Cluster(
        kubeconfig=control_plane.kubeconfig_file(control_plane.ADMIN.file_name),
        kubectl=programs.program(programs.KUBERNETES, "kubectl"),
    )


def _built_of() -> dict[str, str]:
    """The keys of the parts; another one means that the running cluster is not today's."""
    keys = {part.name: programs.go_part_key(part) for part in programs.GO_PARTS}
    return {**keys, "pause": node_images.pause_reference()}


def _boot(printer: Printer) -> None:
    progress = Progress("boot", 5, printer)
    deadline = time.monotonic() + BOOT_SECONDS
    # Also after a crash: what an earlier boot left is removed by the same means as by `down`.
    with progress.part("remove what an earlier cluster left"):
        cleanup.remove_everything()
        machine.save()
    try:
        with progress.part("certificates, configuration, network, cgroups"):
            _prepare()
        with progress.part("etcd, API server, container runtimes"):
            _start_foundations(deadline)
        with progress.part("kubelets, controllers, scheduler, proxies, DNS"):
            _start_the_rest(deadline)
        with progress.part("two Ready nodes"):
            _wait_until_usable(deadline)
    except BaseException:
        # The logs are in the message already; half a cluster helps nobody.
        with contextlib.suppress(ClusterError):
            cleanup.remove_everything()
        raise
    _READY_FILE.write_text(json.dumps(_built_of()))
    progress.finish("two nodes are Ready")


def _prepare() -> None:
    control_plane.write_identities()
    control_plane.write_corefile()
    for each in NODES:
        node.write_configuration(each, node_images.pause_reference())
        cgroups.create(each.cgroup)
    network.create()


def _start_foundations(deadline: float) -> None:
    started = [control_plane.etcd(), control_plane.api_server()]
    started += [node.containerd(each) for each in NODES]
    for program in started:
        processes.start(program)
    for each in NODES:
        _wait_for(
            node.containerd(each).name,
            partial(node_images.runtime_answers, each),
            deadline,
        )
    node_images.load_images({node_images.pause_reference(): node_images.pause_archive()})
    _wait_for(control_plane.API_SERVER, _CHECKS[control_plane.API_SERVER], deadline)


def _start_the_rest(deadline: float) -> None:
    for program in _after_the_api_server():
        processes.start(program)
    _wait_for(
        "kube-system",
        lambda: api.get(control_plane.PKI, "/api/v1/namespaces/kube-system") is not None,
        deadline,
    )
    _cluster().kubectl_run(
        "apply", "--validate=false", "-f", "-", stdin=control_plane.dns_objects()
    )


def _wait_until_usable(deadline: float) -> None:
    checks: dict[str, Callable[[], bool]] = {
        **{node.kubelet(n).name: partial(_node_is_ready, n) for n in NODES},
        **{node.kube_proxy(n).name: partial(_proxy_is_ready, n) for n in NODES},
        control_plane.CLUSTER_DNS: _CHECKS[control_plane.CLUSTER_DNS],
        control_plane.CONTROLLER_MANAGER: _default_account_exists,
    }
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        waits = [pool.submit(_wait_for, name, check, deadline) for name, check in checks.items()]
        for wait in waits:
            wait.result()


def _wait_for(name: str, check: Callable[[], bool], deadline: float) -> None:
    """Poll a check until it holds.

    Raises:
        BootFailed: the program of that name has ended, or the deadline is over.
    """
    while not check():
        record = processes.recorded().get(name)
        if record is not None and not record.is_alive:
            raise BootFailed(f"{name} ended by itself:\n{processes.log_tail(record.program)}")
        if time.monotonic() > deadline:
            tail = processes.log_tail(record.program) if record else ""
            raise BootFailed(f"{name} was not ready after {BOOT_SECONDS} s:\n{tail}")
        time.sleep(_POLL_SECONDS)


def _node_is_ready(each: Node) -> bool:
    found = api.get(control_plane.PKI, f"/api/v1/nodes/{each.name}")
    if found is None:
        return False
    conditions = found["status"].get("conditions", [])
    if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
        return False
    if "podCIDR" not in found["spec"]:
        network_of_pods = str(each.pod_network)
        body = {"spec": {"podCIDR": network_of_pods, "podCIDRs": [network_of_pods]}}
        api.request(control_plane.PKI, "PATCH", f"/api/v1/nodes/{each.name}", body)
    return True


def _proxy_is_ready(each: Node) -> bool:
    return api.plain_get_is_ok(str(each.address), node.PROXY_HEALTH_PORT, "/healthz")


def _dns_is_ready() -> bool:
    return api.plain_get_is_ok(str(CONTROL_PLANE.address), control_plane.DNS_READY_PORT, "/ready")


def _default_account_exists() -> bool:
    path = "/api/v1/namespaces/default/serviceaccounts/default"
    return api.get(control_plane.PKI, path) is not None


_CHECKS: dict[str, Callable[[], bool]] = {
    control_plane.API_SERVER: lambda: api.is_ready(control_plane.PKI),
    control_plane.ETCD: lambda: api.is_ready(control_plane.PKI),
    control_plane.CLUSTER_DNS: _dns_is_ready,
}


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
