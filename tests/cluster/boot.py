"""Boots the cluster step by step, and knows when each of its programs serves.

Order: network and files; what has no needs (store, API server, container runtimes); what needs the
API server. Within a step everything starts at once, and readiness is polled often.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.cluster import (
    api,
    cgroups,
    cleanup,
    control_plane,
    machine,
    network,
    node,
    node_images,
    processes,
    programs,
)
from tests.cluster.commands import run
from tests.cluster.errors import BootFailed, ClusterError
from tests.cluster.layout import CONTROL_PLANE, NODES, Node
from tests.cluster.paths import STATE, cache_folder
from tests.cluster.processes import Program
from tests.cluster.progress import Printer, Progress

BOOT_SECONDS = 90
_POLL_SECONDS = 0.05

Check = Callable[[], bool]


def boot(printer: Printer) -> None:
    """Remove what an earlier cluster left and boot a new one; the caller holds the state's lock.

    Raises:
        BootFailed: a part did not come up; everything was removed again, the logs were kept.
    """
    progress = Progress("boot", 5, printer)
    deadline = time.monotonic() + BOOT_SECONDS
    # Also after a crash: what an earlier boot left is removed by the same means as by `down`.
    with progress.part("remove what an earlier cluster left"):
        cleanup.remove_everything()
        machine.save()
        machine.make_room()
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
        # Half a cluster helps nobody; its logs may.
        printer(f"[boot] failed; the logs are in {_keep_logs()}")
        with contextlib.suppress(ClusterError):
            cleanup.remove_everything()
        raise
    progress.finish("two nodes are Ready")


def all_programs() -> list[Program]:
    """Every program of a running cluster, in the order of their start."""
    return [*_foundations(), *_the_rest()]


def wait_until_serving(program: str) -> None:
    """Wait until a program that was just started does its work.

    Raises:
        BootFailed: it does not, in time.
    """
    _wait_for(program, serving_checks()[program], time.monotonic() + BOOT_SECONDS)


def serving_checks() -> dict[str, Check]:
    """For every program the question whether it serves."""
    main = str(CONTROL_PLANE.address)
    checks: dict[str, Check] = {
        # A store that does not answer shows in the API server's own readiness.
        control_plane.ETCD: api_server_is_ready,
        control_plane.API_SERVER: api_server_is_ready,
        control_plane.CONTROLLER_MANAGER: partial(_port_answers, main, 10257),
        control_plane.SCHEDULER: partial(_port_answers, main, 10259),
        control_plane.CLUSTER_DNS: partial(
            api.plain_get_is_ok, main, control_plane.DNS_READY_PORT, "/ready"
        ),
    }
    for each in NODES:
        address = str(each.address)
        checks[node.containerd(each).name] = partial(node_images.runtime_answers, each)
        checks[node.kubelet(each).name] = partial(_port_answers, address, 10250)
        checks[node.kube_proxy(each).name] = partial(
            api.plain_get_is_ok, address, node.PROXY_HEALTH_PORT, "/healthz"
        )
    return checks


def api_server_is_ready() -> bool:
    """Whether the API server says that it is ready."""
    return api.is_ready(control_plane.PKI)


def _foundations() -> list[Program]:
    return [
        control_plane.etcd(),
        control_plane.api_server(),
        *(node.containerd(each) for each in NODES),
    ]


def _the_rest() -> list[Program]:
    return [
        *(node.kubelet(each) for each in NODES),
        control_plane.controller_manager(),
        control_plane.scheduler(),
        *(node.kube_proxy(each) for each in NODES),
        control_plane.cluster_dns(),
    ]


def _prepare() -> None:
    control_plane.write_identities()
    control_plane.write_corefile()
    for each in NODES:
        node.write_configuration(each, node_images.pause_reference())
        cgroups.create(each.cgroup)
    network.create()


def _start_foundations(deadline: float) -> None:
    for program in _foundations():
        processes.start(program)
    checks = serving_checks()
    for each in NODES:
        name = node.containerd(each).name
        _wait_for(name, checks[name], deadline)
    node_images.load_images({node_images.pause_reference(): node_images.pause_archive()})
    _wait_for(control_plane.API_SERVER, api_server_is_ready, deadline)


def _start_the_rest(deadline: float) -> None:
    for program in _the_rest():
        processes.start(program)
    _wait_for(
        control_plane.API_SERVER, partial(_exists, "/api/v1/namespaces/kube-system"), deadline
    )
    run(
        [
            programs.program(programs.KUBERNETES, "kubectl"),
            f"--kubeconfig={control_plane.admin_kubeconfig()}",
            *("apply", "--validate=false", "-f", "-"),
        ],
        stdin=control_plane.dns_objects(),
    )


def _wait_until_usable(deadline: float) -> None:
    checks = serving_checks()
    checks.update({node.kubelet(each).name: partial(_node_is_ready, each) for each in NODES})
    # No pod can be created in a namespace before its account exists.
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    checks[control_plane.CONTROLLER_MANAGER] = partial(_exists, account)
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        waits = [pool.submit(_wait_for, name, check, deadline) for name, check in checks.items()]
        for wait in waits:
            wait.result()


def _wait_for(name: str, check: Check, deadline: float) -> None:
    """Poll a check until it holds.

    Raises:
        BootFailed: the program of that name has ended, or the deadline is over.
    """
    while not check():
        record = processes.recorded().get(name)
        tail = processes.log_tail(record.program) if record else "(never started)"
        if record is not None and not record.is_alive:
            raise BootFailed(f"{name} ended by itself:\n{tail}")
        if time.monotonic() > deadline:
            raise BootFailed(f"{name} did not serve within {BOOT_SECONDS} s:\n{tail}")
        time.sleep(_POLL_SECONDS)


def _node_is_ready(each: Node) -> bool:
    """Whether a node is Ready; if so, its pod network is written into it, as an allocator would."""
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


def _exists(path: str) -> bool:
    return api.get(control_plane.PKI, path) is not None


def _port_answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=api.TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def _keep_logs() -> Path:
    """Copy the logs of a failed boot out of the state folder, in place of an earlier one's."""
    kept = cache_folder() / "failed-boot"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(STATE / "logs", kept) if (STATE / "logs").is_dir() else kept.mkdir(parents=True)
    return kept
