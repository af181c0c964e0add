"""Nodes and pods that nobody runs (KWOK), beside a private API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from nightcap.contract import keys
from nightcap.kube import paths
from tests.apiserver.private import PrivateApi, free_port
from tests.cluster import programs, toolchain

STAGES = Path(__file__).with_name("stages.yaml")
_AT_ONCE = 8
_INJECTED = json.dumps({"release": "scale", "orders": 1, "profile": "privileged"})

T = TypeVar("T")


class FakeNodes:
    """KWOK and its nodes; pods that are bound to one of them run at once."""

    def __init__(self, api: PrivateApi, count: int) -> None:
        _build_kwok()
        self.names = [f"fake-{number}" for number in range(count)]
        for name in self.names:
            api.client.request("POST", "/api/v1/nodes", body=_node(name))
        self.log = api.run(
            "kwok", str(programs.program(programs.KWOK, "kwok")),
            f"--kubeconfig={api.kubeconfig}", f"--config={STAGES}",
            "--manage-nodes-with-label-selector=type=kwok",
            "--node-lease-duration-seconds=0", f"--server-address=127.0.0.1:{free_port()}",
        )  # fmt: skip


def _build_kwok() -> None:
    if not programs.is_built(programs.KWOK):
        go = toolchain.find_go(toolchain.needed_version([programs.KWOK.go_mod]))
        programs.build_go_part(programs.KWOK, go)


def run_deployments(api: PrivateApi) -> None:
    """The cluster's own programs that make pods of Deployments and give them nodes."""
    for name, more in (
        ("kube-controller-manager", ["--controllers=deployment-controller,replicaset-controller"]),
        ("kube-scheduler", []),
    ):
        api.run(
            name, str(programs.program(programs.KUBERNETES, name)),
            f"--kubeconfig={api.kubeconfig}", f"--cert-dir={api.folder}", "--secure-port=0",
            # By default they ask 20 and 50 times a second at most: pure waiting here.
            "--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000", *more,
        )  # fmt: skip


def at_once(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do something for each item, several at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass


def make_pods(api: PrivateApi, namespace: str, count: int, nodes: list[str], apps: int) -> None:
    """Create pods as the webhook would leave them, bound to nodes, labelled app=app-N."""

    def make(number: int) -> None:
        pod = an_injected_pod(f"pod-{number}", f"app-{number % apps}", nodes[number % len(nodes)])
        api.client.request("POST", paths.pods(namespace), body=pod)

    at_once(make, range(count))


def an_injected_pod(name: str, app: str, node: str) -> dict[str, Any]:
    """About as large as a real one."""
    environment = [
        {"name": f"SETTING_{number}", "value": f"https://service-{number}.example/path"}
        for number in range(40)
    ]
    return {
        "metadata": {
            "name": name,
            "labels": {"app": app, "pod-template-hash": "5d9c7b8f6d", "tier": "web"},
            "annotations": {keys.INJECTED: _INJECTED, "example.com/checksum": "0" * 64},
        },
        "spec": {
            "nodeName": node,
            "initContainers": [
                {
                    "name": keys.SIDECAR_CONTAINER,
                    "image": "registry.local/nightcap/sidecar:1",
                    "restartPolicy": "Always",
                }
            ],
            "containers": [
                {"name": "app", "image": "registry.local/app:1", "env": environment},
            ],
        },
    }


def _node(name: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {"type": "kwok", "kubernetes.io/hostname": name},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        }
    }
