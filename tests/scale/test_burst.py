"""A Deployment that is scaled to a thousand at once: every pod of it gets its sidecar whole."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certs.settings import CertificateSettings
from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH
from tests.apiserver.private import PrivateApi
from tests.apiserver.site import SYSTEM, Site
from tests.apiserver.test_rotation import capture_all
from tests.scale.crowd import FakeNodes, run_deployments

pytestmark = pytest.mark.long

PODS = 1000
NODES = 20
DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/web"
VOLUMES = {keys.ORDERS_VOLUME, keys.SPOOL_VOLUME, keys.TOKEN_VOLUME, keys.NO_API_VOLUME}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two webhooks behind one Service, and the cluster's own controllers and scheduler."""
    api = PrivateApi(tmp_path)
    try:
        site = Site(api, CertificateSettings.standard(SYSTEM))
        try:
            site.start()
            FakeNodes(api, NODES)
            run_deployments(api)
            yield site
        finally:
            site.close()
    finally:
        api.close()


def deployment(replicas: int) -> dict[str, Any]:
    labels = {"app": "web"}
    pod = {
        "containers": [{"name": "app", "image": "registry.local/app:1"}],
        # Nobody takes away the taint that a new node has until it is looked after.
        "tolerations": [{"operator": "Exists"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def what_is_missing(pod: dict[str, Any]) -> str:
    """What of the sidecar a pod has not; empty when it is whole."""
    first = pod["spec"].get("initContainers", [{}])[0]
    annotations = pod["metadata"].get("annotations", {})
    mounts = {mount["name"] for mount in first.get("volumeMounts", ())}
    found = {
        "sidecar": (first.get("name"), first.get("restartPolicy")) == ("nightcap", "Always"),
        "hook": "postStart" in first.get("lifecycle", {}),
        "mounts": mounts >= VOLUMES,
        "volumes": {volume["name"] for volume in pod["spec"]["volumes"]} >= VOLUMES,
        "orders": keys.ORDERS in annotations,
        "injected": keys.INJECTED in annotations,
    }
    return ", ".join(name for name, there in found.items() if not there)


def decisions(site: Site, number: int) -> list[dict[str, Any]]:
    """What one replica said of pods of this namespace."""
    lines = (site.api.folder / f"webhook-{number}.log").read_text().splitlines()
    found = (json.loads(line) for line in lines)
    return [e for e in found if e["event"] == "admission" and e["namespace"] == "shop"]


@pytest.mark.timeout(900)
def test_a_deployment_scaled_to_a_thousand_is_injected_whole(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.api.namespace("shop", **{keys.INJECT: keys.INJECT_ENABLED})
    # No controller of ours runs here: orders that a pod has came with its creation.
    uid = capture_all(site, "shop")
    site.api.apply(deployment(1))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(site.api.client.request("GET", DEPLOYMENT))["status"]
        return found

    site.eventually("the first pod is ready", lambda: status().get("readyReplicas") == 1)
    began_at = time.monotonic()
    body = {"spec": {"replicas": PODS}}
    site.api.client.request("PATCH", DEPLOYMENT, body=body, content_type=MERGE_PATCH)
    site.eventually("all are made", lambda: status().get("replicas") == PODS)
    made_after = time.monotonic() - began_at
    deadline = time.monotonic() + 300
    while status().get("readyReplicas") != PODS:
        assert time.monotonic() < deadline, f"{status()}\n{site.logs()}"
        time.sleep(0.2)
    ready_after = time.monotonic() - began_at
    pods = json.loads(site.api.client.request("GET", paths.pods("shop")))["items"]
    faults = Counter(what_is_missing(pod) for pod in pods)
    asked = [decisions(site, number) for number in range(len(site.replicas))]
    took = sorted(entry["ms"] for entries in asked for entry in entries)
    with capsys.disabled():
        print(
            f"\n{len(pods)} pods made in {made_after:.1f} s, all ready after {ready_after:.1f} s; "
            f"{faults['']} injected whole; answered by the replicas: "
            f"{[len(entries) for entries in asked]}, in {took[len(took) // 2]:.2f} ms (median), "
            f"{took[-len(took) // 100]:.2f} ms (99th percentile), {took[-1]:.2f} ms (the longest)",
            file=sys.stderr,
        )
    assert len(pods) == PODS
    assert faults == {"": PODS}
    assert all(uid in pod["metadata"]["annotations"][keys.ORDERS] for pod in pods)
    assert all(asked), "one replica took everything: nothing is said of two"
