"""A sidecar's image that no node can pull: who notices, what goes on, and how pods are freed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from demo.kubectl import wait_for
from demo.stage import Stage
from tests.e2e.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "nightcap-system"
GONE = "registry.local/nightcap/sidecar-that-nobody-pushed:1"
GATE = "example.com/until-its-image-is-gone"
REPLICAS = 4


def doctor(stage: Stage, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "nightcap.cli", "doctor", *arguments],
        env={**os.environ, "KUBECONFIG": str(stage.kubectl.kubeconfig)},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def pods(shop: Shop) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = shop.kubectl.json("-n", shop.name, "get", "pods")["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def waiting(pod: dict[str, Any]) -> str:
    """The kubelet's word for why the sidecar waits."""
    for status in pod["status"].get("initContainerStatuses", []):
        if status["name"] == "nightcap":
            return str(status["state"].get("waiting", {}).get("reason", ""))
    return ""


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def a_deployment(shop: Shop, name: str, replicas: int) -> dict[str, Any]:
    template = shop.pod(name)
    template = {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    template["spec"]["schedulingGates"] = [{"name": GATE}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
        },
    }


def start_with_an_image_that_is_gone(shop: Shop, count: int) -> None:
    """Let the gated, injected pods go, with a sidecar that cannot be pulled."""
    made = wait_for("the pods", lambda: pods(shop) if len(pods(shop)) == count else None, 30)
    for pod in made:
        assert pod["spec"]["initContainers"][0]["name"] == "nightcap"
        patch = [
            {"op": "replace", "path": "/spec/initContainers/0/image", "value": GONE},
            {"op": "remove", "path": "/spec/schedulingGates"},
        ]
        name = pod["metadata"]["name"]
        shop.run("patch", "pod", name, "--type=json", "-p", json.dumps(patch))
    wait_for(
        "pods that wait for the image",
        lambda: all(waiting(pod) in ("ErrImagePull", "ImagePullBackOff") for pod in pods(shop)),
        60,
    )


@pytest.mark.long
@pytest.mark.alone
def test_pods_that_wait_for_our_image_are_noticed_and_freed(
    shop: Shop, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.create(a_deployment(shop, "web", REPLICAS))
    start_with_an_image_that_is_gone(shop, REPLICAS)
    began_at = time.monotonic()
    code, said = doctor(stage)
    assert code == 1
    assert f"{REPLICAS} pods wait for the container nightcap, image {GONE}" in said
    try:
        wait_for(
            "injection to be off",
            lambda: stage.kubectl.run(
                "-n", SYSTEM, "get", "configmap", "nightcap-injection",
                "--ignore-not-found", "-o", "jsonpath={.data.injection}",
            ) == "off",
            120,
        )  # fmt: skip
        off_seconds = time.monotonic() - began_at
        note = shop.event(shop.name, "injection is switched off")["note"]
        assert "--rescue" in note
        # Life goes on without us.
        shop.start(shop.pod("later"))
        assert shop.containers("later") == []
        code, said = doctor(stage)
        assert code == 1
        assert "injection is switched off since" in said
        # One pod is freed by another name of the image, the rest by what the webhook injects.
        rescued_at = time.monotonic()
        code, said = doctor(stage, "--rescue")
        assert said.count("its sidecar has image") == REPLICAS, said
        assert "delete configmap nightcap-injection" in said
        wait_for("the pods are ready", lambda: all(map(is_ready, pods(shop))), 60)
        freed_seconds = time.monotonic() - rescued_at
        assert shop.containers(pods(shop)[0]["metadata"]["name"]) in (["nightcap"], [])
        _delete_those_that_no_image_helps(shop, stage)
    finally:
        stage.kubectl.run(
            "-n", SYSTEM, "delete", "configmap", "nightcap-injection", "--ignore-not-found"
        )
    shop.start(shop.pod("again"))
    assert shop.containers("again") == ["nightcap"]
    with capsys.disabled():
        print(
            f"\n{REPLICAS} pods whose sidecar could not be pulled: injection off after "
            f"{off_seconds:.0f} s, pods ready {freed_seconds:.1f} s after --rescue",
            file=sys.stderr,
        )


def _delete_those_that_no_image_helps(shop: Shop, stage: Stage) -> None:
    shop.run("delete", "deployment", "web")
    shop.run("delete", "pods", "--all", "--force", "--grace-period=0")
    wait_for("no pod is left", lambda: not pods(shop), 60)
    kubectl = stage.kubectl
    switch = kubectl.json("-n", SYSTEM, "get", "configmap", "nightcap-injection")
    kubectl.run("-n", SYSTEM, "delete", "configmap", "nightcap-injection")
    wait_for("injection is on", lambda: _is_injected(shop), 30)
    shop.create(a_deployment(shop, "api", 1), {**shop.pod("alone"), **_gated(shop)})
    start_with_an_image_that_is_gone(shop, 2)
    code, said = doctor(stage, "--rescue", f"--image={GONE}", "--delete")
    assert code == 1
    assert "while injection is on it would come back as it is" in said
    switch["metadata"] = {"name": "nightcap-injection", "namespace": SYSTEM}
    kubectl.run("create", "-f", "-", stdin=json.dumps(switch))
    wait_for("injection is off", lambda: not _is_injected(shop), 30)
    code, said = doctor(stage, "--rescue", f"--image={GONE}", "--delete")
    assert "is deleted; it comes back without a sidecar" in said
    assert f"pod {shop.name}/alone is not deleted" in said


def _gated(shop: Shop) -> dict[str, Any]:
    return {"spec": {**shop.pod("alone")["spec"], "schedulingGates": [{"name": GATE}]}}


def _is_injected(shop: Shop) -> bool:
    made = shop.run(
        "create", "-f", "-", "--dry-run=server", "-o", "json", stdin=json.dumps(shop.pod("try"))
    )
    return "initContainers" in json.loads(made)["spec"]
