"""Nobody but the controller changes orders, on any path that can change a pod's metadata.

And nobody else is in the way: what kubelet, scheduler and other controllers do to a pod goes on,
whether it carries orders or not.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from nightcap.kube.errors import ApiError, Forbidden
from tests.apiserver import minors
from tests.apiserver.private import Installation, PrivateApi
from tests.apiserver.test_resources import BURSTABLE, a_pod
from tests.cluster import programs

CONTROLLER = "system:serviceaccount:nightcap-system:nightcap-controller"
EVERYTHING = {"Impersonate-User": "somebody", "Impersonate-Group": "system:masters"}
FORGED = '{"v":1,"collectors":[],"captures":[]}'
GENUINE = '{"v":1,"collectors":["10.96.0.9:20443"],"captures":[]}'
REFUSED = "annotations? nightcap.dev/(orders|injected) .*(is written by|may not be brought)"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Placed:
    """A pod of a namespace that is enabled, on a node, as one of its lives."""

    api: PrivateApi
    namespace: str
    name: str

    def send(
        self,
        method: str,
        subresource: str,
        body: Any,
        content_type: str = JSON,
        user: dict[str, str] | None = None,
    ) -> None:
        """As somebody who may do everything, if no other is named."""
        query = {"fieldManager": "test", "force": "true"} if content_type == APPLY_PATCH else {}
        self.api.client.request(
            method,
            f"{paths.pod(self.namespace, self.name)}{subresource}",
            query=query,
            body=body,
            content_type=content_type,
            headers=user or EVERYTHING,
        )

    def read(self) -> dict[str, Any]:
        text = self.api.client.request("GET", paths.pod(self.namespace, self.name))
        found: dict[str, Any] = json.loads(text)
        return found

    def orders(self) -> str | None:
        found: str | None = self.read()["metadata"]["annotations"].get(keys.ORDERS)
        return found

    def whole(self, **annotations: str) -> dict[str, Any]:
        """The object with other annotations."""
        found = self.read()
        found["metadata"]["annotations"] |= annotations
        return found


@pytest.fixture(scope="module")
def policed(api: PrivateApi, installation: Installation) -> Iterator[PrivateApi]:
    """The policy, in force."""
    api.apply(*installation.documents("orders-policy.yaml"))
    name = api.namespace(f"policed-{uuid.uuid4().hex[:6]}")
    forged = a_pod()
    forged["metadata"]["annotations"] = {keys.ORDERS: FORGED}
    kept = a_pod()
    kept["metadata"]["name"] = "kept"
    api.create_pod(name, kept, dry_run=False)
    pod = Placed(api, name, "kept")
    wait_refused(lambda: api.create_pod(name, forged))
    wait_refused(lambda: pod.send("PATCH", "", annotated(keys.ORDERS), MERGE_PATCH))
    yield api
    both = "validatingadmissionpolicybinding,validatingadmissionpolicy"
    api.kubectl("delete", both, "-l", "nightcap.dev/remove=last")


def wait_refused(attempt: Callable[[], object]) -> None:
    """Wait until a policy is in force."""
    deadline = time.monotonic() + 20
    while True:
        try:
            attempt()
        except ApiError:
            return
        assert time.monotonic() < deadline, "the policy does not come into force"
        time.sleep(0.1)


@pytest.fixture
def placed(policed: PrivateApi, namespace: Callable[..., str]) -> Placed:
    """A pod that was injected and is on a node."""
    name = namespace()
    created = policed.create_pod(name, a_pod(BURSTABLE), dry_run=False)
    pod = Placed(policed, name, created["metadata"]["name"])
    assert keys.INJECTED in created["metadata"]["annotations"]
    pod.send("POST", "/binding", binding(pod.name))
    return pod


def binding(pod: str, **annotations: str) -> dict[str, Any]:
    """To a node that is not there, and need not be."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "annotations": annotations},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "somewhere"},
    }


def annotated(key: str, value: str | None = FORGED) -> dict[str, Any]:
    return {"metadata": {"annotations": {key: value}}}


def added(key: str) -> list[dict[str, Any]]:
    path = f"/metadata/annotations/{key.replace('/', '~1')}"
    return [{"op": "add", "path": path, "value": FORGED}]


def applied(pod: Placed, key: str) -> dict[str, Any]:
    meta = {"name": pod.name, "annotations": {key: FORGED}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


CHANGES: dict[str, Callable[[Placed, str, str], None]] = {
    "update": lambda pod, at, key: pod.send("PUT", at, pod.whole(**{key: FORGED})),
    "merge patch": lambda pod, at, key: pod.send("PATCH", at, annotated(key), MERGE_PATCH),
    "strategic patch": lambda pod, at, key: pod.send("PATCH", at, annotated(key), STRATEGIC_PATCH),
    "json patch": lambda pod, at, key: pod.send("PATCH", at, added(key), JSON_PATCH),
    "server-side apply": lambda pod, at, key: pod.send("PATCH", at, applied(pod, key), APPLY_PATCH),
}


@pytest.mark.parametrize("key", [keys.ORDERS, keys.INJECTED])
def test_no_write_of_a_pod_or_its_status_changes_our_annotations(placed: Placed, key: str) -> None:
    before = placed.read()["metadata"]["annotations"]
    for title, change in CHANGES.items():
        for at in ("", "/status"):
            with pytest.raises(Forbidden, match=REFUSED):
                change(placed, at, key)
            assert placed.read()["metadata"]["annotations"] == before, (title, at)


@pytest.mark.parametrize("key", [keys.ORDERS, keys.INJECTED])
def test_our_annotations_cannot_be_taken_away(placed: Placed, key: str) -> None:
    controller = {"Impersonate-User": CONTROLLER}
    placed.send("PATCH", "/status", annotated(keys.ORDERS, GENUINE), MERGE_PATCH, controller)
    for at in ("", "/status"):
        with pytest.raises(Forbidden, match=REFUSED):
            placed.send("PATCH", at, annotated(key, None), MERGE_PATCH)
    assert placed.orders() == GENUINE


@pytest.mark.parametrize("key", [keys.ORDERS, keys.INJECTED])
def test_no_binding_brings_them_along(
    policed: PrivateApi, namespace: Callable[..., str], key: str
) -> None:
    name = namespace()
    created = policed.create_pod(name, a_pod(), dry_run=False)
    pod = Placed(policed, name, created["metadata"]["name"])
    with pytest.raises(Forbidden, match=REFUSED):
        pod.send("POST", "/binding", binding(pod.name, **{key: FORGED}))
    with pytest.raises(Forbidden, match=REFUSED):
        policed.client.request(
            "POST",
            f"{paths.namespace(name)}/bindings",
            body=binding(pod.name, **{key: FORGED}),
            headers=EVERYTHING,
        )
    assert pod.read()["metadata"]["annotations"] == created["metadata"]["annotations"]


def test_ephemeral_containers_go_on_and_what_they_bring_of_metadata_is_dropped(
    placed: Placed,
) -> None:
    before = placed.read()["metadata"]["annotations"]
    debugger = {"name": "debugger", "image": "registry.local/app:1"}
    body = annotated(keys.ORDERS) | {"spec": {"ephemeralContainers": [debugger]}}
    placed.send("PATCH", "/ephemeralcontainers", body, STRATEGIC_PATCH)
    after = placed.read()
    assert [c["name"] for c in after["spec"]["ephemeralContainers"]] == ["debugger"]
    assert after["metadata"]["annotations"] == before


@pytest.mark.skipif(
    minors.wanted(os.environ) is programs.KUBERNETES_OLDEST,
    reason="the oldest minor has no such subresource",
)
def test_a_resize_goes_on_and_what_it_brings_of_metadata_is_dropped(placed: Placed) -> None:
    before = placed.read()["metadata"]["annotations"]
    changed = placed.whole(**{keys.ORDERS: FORGED})
    changed["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "110m"
    placed.send("PUT", "/resize", changed)
    after = placed.read()
    assert after["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "110m"
    assert after["metadata"]["annotations"] == before


@pytest.mark.parametrize("key", [keys.ORDERS, keys.INJECTED])
@pytest.mark.parametrize("labels", [{}, {keys.INJECT: keys.INJECT_ENABLED}], ids=["no", "yes"])
def test_a_pod_may_be_created_with_them_only_where_the_webhook_has_the_last_word(
    policed: PrivateApi, labels: dict[str, str], key: str
) -> None:
    name = policed.namespace(f"brought-{uuid.uuid4().hex[:6]}", **labels)
    pod = a_pod()
    pod["metadata"]["annotations"] = {key: FORGED}
    if labels:
        annotations = policed.create_pod(name, pod)["metadata"]["annotations"]
        assert keys.ORDERS not in annotations
        assert annotations[keys.INJECTED] != FORGED
        pod["metadata"]["labels"] = {keys.INJECT: keys.INJECT_DISABLED}
    with pytest.raises(Forbidden, match=REFUSED):
        policed.create_pod(name, pod)


def checks(api: PrivateApi) -> float:
    """How many times the API server has looked at the validations of a policy of ours."""
    text = api.client.request("GET", "/metrics").decode()
    name = "apiserver_validating_admission_policy_check_total{"
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(name) and 'policy="nightcap-' in line
    )


def test_whoever_breaks_no_rule_costs_the_api_server_its_conditions_alone(placed: Placed) -> None:
    """Validations convert the pod three more times, at every write of a status in the cluster."""
    before = checks(placed.api)
    placed.send("PATCH", "/status", {"status": {"phase": "Running"}}, STRATEGIC_PATCH)
    placed.send("PUT", "", placed.whole(**{"example.com/note": "fine"}))
    placed.api.create_pod(placed.namespace, a_pod(), dry_run=False)
    placed.api.create_pod(placed.api.namespace("not-enabled"), a_pod(), dry_run=False)
    assert checks(placed.api) == before
    with pytest.raises(Forbidden, match=REFUSED):
        placed.send("PATCH", "", annotated(keys.ORDERS), MERGE_PATCH)
    assert checks(placed.api) > before


def test_the_controller_writes_orders_and_nothing_else_of_a_pod(placed: Placed) -> None:
    controller = {"Impersonate-User": CONTROLLER}
    placed.send("PATCH", "/status", annotated(keys.ORDERS, GENUINE), MERGE_PATCH, controller)
    assert placed.orders() == GENUINE
    for subresource in ("", "/ephemeralcontainers", "/resize"):
        with pytest.raises(Forbidden, match="cannot patch resource"):
            placed.send("PATCH", subresource, annotated("x", "y"), MERGE_PATCH, controller)


def test_kubelet_scheduler_and_controllers_are_not_in_the_way(placed: Placed) -> None:
    """What they write, as they write it, on a pod that carries orders."""
    controller = {"Impersonate-User": CONTROLLER}
    placed.send("PATCH", "/status", annotated(keys.ORDERS, GENUINE), MERGE_PATCH, controller)
    running = {"status": {"phase": "Running", "podIP": "10.244.0.7"}}
    placed.send("PATCH", "/status", running, STRATEGIC_PATCH)  # the kubelet
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "Test"}
    placed.send("PATCH", "/status", {"status": {"conditions": [condition]}}, STRATEGIC_PATCH)
    placed.send("PUT", "/status", placed.read())  # others that write statuses whole
    adopted = {"metadata": {"labels": {"pod-template-hash": "1"}, "finalizers": ["example.com/f"]}}
    placed.send("PATCH", "", adopted, STRATEGIC_PATCH)  # a ReplicaSet that adopts it
    placed.send("PUT", "", placed.whole(**{"example.com/note": "fine"}))
    placed.send("PATCH", "", {"metadata": {"finalizers": None}}, MERGE_PATCH)
    assert placed.read()["status"]["phase"] == "Running"
    assert placed.orders() == GENUINE
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": placed.name}}
    placed.send("POST", "/eviction", eviction)
    assert "deletionTimestamp" in placed.read()["metadata"]
    placed.send("PATCH", "/status", {"status": {"phase": "Succeeded"}}, STRATEGIC_PATCH)
    placed.send("DELETE", "", {"gracePeriodSeconds": 0})
