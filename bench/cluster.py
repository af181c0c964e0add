"""The disposable real cluster, seen from inside and from its nodes' own folders."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.result import say
from demo import stage as stages
from demo.stage import Stage
from nightcap.contract.keys import ORDERS
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError
from tests.cluster.layout import node_named
from tests.e2e.shop import Shop


@contextmanager
def namespace(title: str) -> Iterator[Shop]:
    """A namespace of the benchmark's own, opted in, on a cluster with this checkout installed."""
    stage = stages.prepare(lambda line: say(f"cluster: {line}"))
    shop = Shop.open(stage, title)
    try:
        yield shop
    finally:
        shop.close()


def client(stage: Stage) -> KubeClient:
    """Straight to the API server: kubectl alone takes longer than what is measured."""
    kubeconfig = stage.kubectl.kubeconfig
    return KubeClient.from_environment(str(kubeconfig) if kubeconfig else None)


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A running, injected pod, and where its node keeps the sidecar's volumes.

    Attributes:
        orders: The projected folder, swapped by the kubelet.
        spool: The sidecar's spool.
    """

    name: str
    uid: str
    orders: Path
    spool: Path

    @classmethod
    def find(cls, shop: Shop, name: str) -> "SeenPod":
        """Look a pod up.

        Raises:
            RuntimeError: the cluster is not the disposable one, whose nodes are folders here.
        """
        if shop.stage.disposable is None:
            raise RuntimeError(
                "this benchmark looks into the nodes' folders: unset KUBECONFIG, so that it runs "
                "on the disposable cluster"
            )
        pod = shop.get("pod", name)
        uid = pod["metadata"]["uid"]
        node = node_named(pod["spec"]["nodeName"])
        volumes = node.folder / "kubelet" / "pods" / uid / "volumes"
        return cls(
            name,
            uid,
            volumes / "kubernetes.io~downward-api" / "nightcap-orders",
            volumes / "kubernetes.io~empty-dir" / "nightcap-spool",
        )


@dataclass
class OrdersWatch:
    """Notes when each capture's uid is first seen in a pod's orders, as the API server tells it."""

    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    now: dict[str, str] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, pod: str, capture: str, timeout_seconds: float = 10) -> float:
        """Wall-clock time at which the pod's orders first named the capture."""
        with self._changed:
            if not self._changed.wait_for(lambda: (pod, capture) in self.seen, timeout_seconds):
                raise TimeoutError(f"no orders for {pod} within {timeout_seconds:g} s")
            return self.seen[pod, capture]

    def wait_none(self, pod: str, timeout_seconds: float = 30) -> None:
        """Wait until the pod has no orders."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.now.get(pod), timeout_seconds):
                raise TimeoutError(f"{pod} keeps its orders for {timeout_seconds:g} s")

    def take(self, event: dict[str, Any], at: float) -> None:
        """Take one watch event in."""
        meta = event["object"]["metadata"]
        if "name" not in meta:
            return
        orders = meta.get("annotations", {}).get(ORDERS, "")
        with self._changed:
            self.now[meta["name"]] = orders
            for capture in json.loads(orders)["captures"] if orders else ():
                self.seen.setdefault((meta["name"], capture["id"]), at)
            self._changed.notify_all()


@contextmanager
def watching_orders(kube: KubeClient, namespace: str) -> Iterator[OrdersWatch]:
    """Watch the orders of all pods of a namespace from a thread."""
    watch, ended = OrdersWatch(), threading.Event()

    def follow() -> None:
        while not ended.is_set():
            try:
                query = {"watch": "true", "timeoutSeconds": "300"}
                with kube.stream_lines(paths.pods(namespace), query) as lines:
                    for line in lines:
                        watch.take(json.loads(line), time.time())
                        if ended.is_set():
                            return
            except ApiError as error:
                say(f"watching again: {error}")

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield watch
    finally:
        ended.set()


def wait_for(what: str, ask: Callable[[], bool], timeout_seconds: float) -> None:
    """Ask often: what is waited for is being timed.

    Raises:
        TimeoutError: naming `what`.
    """
    end = time.monotonic() + timeout_seconds
    while not ask():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(0.005)
