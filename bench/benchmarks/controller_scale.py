"""The controller with thousands of pods and captures: memory, start, new orders, idling.

A real API server and etcd on the loopback, KWOK's nodes, and the controller as a process with its
own rights. The pods come as the webhook would leave them, bound to their nodes; no scheduler and
no controller manager runs, and nobody is asked for reports.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cluster import OrdersWatch, watching_orders
from bench.effort import Effort
from bench.result import Result, alone, say
from nightcap.contract import keys
from nightcap.kube import paths
from tests.apiserver.controllers import ControllerProcess, install
from tests.apiserver.private import PrivateApi
from tests.scale.crowd import FakeNodes, at_once, make_pods

NAME = "controller-scale"
_SIZES = (1_000, 5_000, 10_000)
_PODS_OF_A_NAMESPACE = 500
_CAPTURES_OF_A_NAMESPACE = 50
_NODES = 40
_IDLE_SECONDS = 30
_ROUNDS = 5


def run(effort: Effort) -> Iterator[Result]:
    """Each size continues where the one before ended, with a controller that starts anew."""
    sizes = _SIZES if effort.is_full else _SIZES[:1]
    with _api() as api:
        install(api)
        nodes = FakeNodes(api, _NODES)
        filled = 0
        for size in sizes:
            wanted = size // _PODS_OF_A_NAMESPACE
            for number in range(filled, wanted):
                say(f"{NAME}: filling namespace {number + 1} of {wanted}")
                _fill(api, f"team-{number}", nodes.names)
            filled = wanted
            yield from _measure(api, size, wanted, effort)


def _measure(api: PrivateApi, size: int, namespaces: int, effort: Effort) -> Iterator[Result]:
    controller = ControllerProcess(api, size)
    controller.start()
    try:
        synced = controller.wait_ready(120)
        # team-0 has its orders from the controller before; those of newer pods are being written.
        early = [] if size == _SIZES[0] else [_order_all(api, "early")]
        for number in range(namespaces):
            _wait_ordered(api, f"team-{number}")
        _wait_quiet(controller)
        settled = time.monotonic() - controller.started_at
        written = controller.metric("nightcap_controller_orders_written_total")
        seconds = [_order_all(api, str(number)) for number in range(effort.of(_ROUNDS, 2))]
        _wait_quiet(controller)
        idle = effort.of(_IDLE_SECONDS, 10)
        used = controller.cpu_seconds()
        time.sleep(idle)
        used = controller.cpu_seconds() - used
        detail = {
            "pods": size,
            "captures": size // _PODS_OF_A_NAMESPACE * _CAPTURES_OF_A_NAMESPACE,
            "first orders written": written,
            "start to all orders and statuses written, s": round(settled, 1),
            "writes put off by the API server": controller.metric(
                "nightcap_controller_actions_put_off_total"
            ),
            "writes that failed": controller.metric("nightcap_controller_actions_failed_total"),
            "most memory, MB": round(controller.memory_mb("VmHWM"), 1),
            "CPU since the start, s": round(controller.cpu_seconds(), 1),
            "pods made by": "the benchmark, as the webhook leaves them; run by KWOK",
        }
        pods = f"{size:,} pods".replace(",", " ")
        yield _point(f"{pods}: a new capture's 500 orders", seconds, 10, "s", "≤ 10 s", detail)
        if early:
            point = f"{pods}: the same, behind the start's"
            yield _point(point, early, 10, "s", "≤ 10 s", detail)
        memory = [controller.memory_mb()]
        yield _point(f"{pods}: memory", memory, 200, "MB", "≤ 200 MB", detail)
        yield _point(f"{pods}: start to synced", [synced], 30, "s", "≤ 30 s", detail)
        yield _point(f"{pods}: idle", [100 * used / idle], 2, "% of a core", "≈ 0 (≤ 2)", detail)
    finally:
        controller.stop()


def _point(
    point: str, samples: list[float], most: float, unit: str, goal: str, detail: dict[str, Any]
) -> Result:
    return alone(NAME, samples, most=most, goal=goal, unit=unit, point=point, detail=detail)


@contextmanager
def _api() -> Iterator[PrivateApi]:
    with tempfile.TemporaryDirectory(prefix="nightcap-scale-") as folder:
        api = PrivateApi(Path(folder))
        try:
            yield api
        finally:
            api.close()


def _fill(api: PrivateApi, namespace: str, nodes: list[str]) -> None:
    api.namespace(namespace, **{keys.INJECT: keys.INJECT_ENABLED})
    make_pods(api, namespace, _PODS_OF_A_NAMESPACE, nodes, apps=_CAPTURES_OF_A_NAMESPACE)

    def capture(number: int) -> None:
        spec = {"selector": {"matchLabels": {"app": f"app-{number}"}}, "duration": "24h"}
        body = _capture(f"app-{number}", spec)
        api.client.request("POST", paths.packetcaptures(namespace), body=body)

    at_once(capture, range(_CAPTURES_OF_A_NAMESPACE))


def _capture(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    api_version = keys.API_VERSIONS[keys.GROUP]
    return {
        "apiVersion": api_version,
        "kind": keys.KIND,
        "metadata": {"name": name},
        "spec": spec,
    }


def _order_all(api: PrivateApi, number: str) -> float:
    """Capture a whole namespace; seconds until the last of its pods has the orders.

    Then the capture is deleted, and the orders are waited for to be gone.
    """
    namespace, name = "team-0", f"everything-{number}"
    pods = [f"pod-{number}" for number in range(_PODS_OF_A_NAMESPACE)]
    with watching_orders(api.client, namespace) as watch:
        _wait_seen(watch, pods)
        body = _capture(name, {"filter": "udp port 53"})
        began_at = time.time()
        made = api.client.request("POST", paths.packetcaptures(namespace), body=body)
        uid = _uid(made)
        last = max(watch.wait(pod, uid, 120) for pod in pods)
        say(f"{NAME}: {len(pods)} orders in {last - began_at:.2f} s")
        api.client.request("DELETE", paths.packetcapture(namespace, name))
        deadline = time.monotonic() + 120
        while any(uid in watch.now.get(pod, "") for pod in pods):
            if time.monotonic() > deadline:
                raise TimeoutError(f"orders of {name}, which was deleted, stay")
            time.sleep(0.05)
    return last - began_at


def _wait_ordered(api: PrivateApi, namespace: str) -> None:
    """Wait until every pod of a namespace has orders, as the API server itself says."""
    deadline = time.monotonic() + 600
    while True:
        pods = json.loads(api.client.request("GET", paths.pods(namespace)))["items"]
        if all(keys.ORDERS in pod["metadata"]["annotations"] for pod in pods):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not every pod of {namespace} has orders")
        time.sleep(1)


def _wait_seen(watch: OrdersWatch, pods: list[str]) -> None:
    deadline = time.monotonic() + 60
    while not all(pod in watch.now for pod in pods):
        if time.monotonic() > deadline:
            raise TimeoutError("the watch has not seen every pod")
        time.sleep(0.05)


def _uid(made: bytes) -> str:
    return str(json.loads(made)["metadata"]["uid"])


def _wait_quiet(controller: ControllerProcess, timeout_seconds: float = 600) -> None:
    """Wait until it has used almost no processor for a few seconds."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        before = controller.cpu_seconds()
        time.sleep(3)
        if controller.cpu_seconds() - before < 0.3:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the controller is still at work after {timeout_seconds:g} s")
