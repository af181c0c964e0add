"""What pod creations notice of a webhook replica that dies."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from demo.kubectl import wait_for
from demo.stage import Stage
from nightcap.kube.client import KubeClient
from tests.apiserver.load import Creating, in_background
from tests.e2e.shop import Shop

NIGHTCAP = "nightcap-system"
REPLICA = "app.kubernetes.io/name=nightcap-webhook"


def creating_in(shop: Shop) -> Creating:
    """Creates pods in a shop, admitted like any other, but never on a node."""
    pod = {
        "metadata": {"generateName": "burst-"},
        "spec": {
            "schedulingGates": [{"name": "example.com/never"}],
            "containers": [{"name": "app", "image": shop.stage.images.app}],
        },
    }
    client = KubeClient.from_environment(str(shop.kubectl.kubeconfig))
    return Creating(client, shop.name, lambda: pod)


def replicas(stage: Stage) -> dict[str, dict[str, Any]]:
    """The specs of the webhook's pods by name, without those that are going."""
    items = stage.kubectl.json("-n", NIGHTCAP, "get", "pods", "-l", REPLICA)["items"]
    return {
        pod["metadata"]["name"]: pod["spec"]
        for pod in items
        if "deletionTimestamp" not in pod["metadata"]
    }


def kill_9(stage: Stage, pod: str) -> None:
    """End every process of a replica at once, as a kernel out of memory does.

    On somebody else's cluster, whose processes are out of reach, delete the pod by force.
    """
    kubectl = stage.kubectl
    uid = kubectl.json("-n", NIGHTCAP, "get", "pod", pod)["metadata"]["uid"]
    if stage.disposable is None:
        kubectl.run("-n", NIGHTCAP, "delete", "pod", pod, "--force", "--grace-period=0")
        return
    processes = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and _is_of(folder, uid)
    ]
    assert processes, f"no process of pod {pod} was found"
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_of(process: Path, uid: str) -> bool:
    """Whether a process is a webhook's, and not the pause program, in that pod."""
    try:
        group = (process / "cgroup").read_text()
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return f"pod{uid}" in group and b"webhook" in command


def restarts(stage: Stage, pod: str) -> int:
    (status,) = stage.kubectl.json("-n", NIGHTCAP, "get", "pod", pod)["status"]["containerStatuses"]
    return int(status["restartCount"])


@pytest.mark.alone
def test_no_pod_creation_fails_when_a_replica_is_killed(
    shop: Shop, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.kubectl.rolled_out(NIGHTCAP, "nightcap-webhook")
    creating = creating_in(shop)
    with in_background(creating.run):
        wait_for("creations under way", lambda: creating.injected > 20, 30)
        victim = min(replicas(stage))
        before = restarts(stage, victim)
        killed_at = time.monotonic()
        kill_9(stage, victim)
        wait_for(
            "its end",
            lambda: victim not in replicas(stage) or restarts(stage, victim) > before,
            60,
        )
        stage.kubectl.rolled_out(NIGHTCAP, "nightcap-webhook")
        after = creating.injected
        wait_for("creations go on", lambda: creating.injected > after + 20, 30)
    lost = len(creating.uninjected)
    until = max((at - killed_at for at in creating.uninjected), default=0.0)
    with capsys.disabled():
        print(
            f"\nwebhook replica killed -9: {creating.injected + lost} pods created, "
            f"{len(creating.refused)} refused, {lost} without sidecar (the last {until:.1f} s "
            f"after), slowest creation {creating.slowest_seconds:.2f} s",
            file=sys.stderr,
        )
    assert creating.refused == []
    # A replica that dies takes requests with it for as long as it is an endpoint, not longer.
    assert lost < creating.injected


def test_a_node_can_be_drained_of_one_replica_at_a_time(stage: Stage) -> None:
    def allowed() -> bool:
        budget = stage.kubectl.json("-n", NIGHTCAP, "get", "pdb", "nightcap-webhook")
        return bool(budget["status"]["disruptionsAllowed"] == 1)

    wait_for("both replicas under the budget", allowed, 60)
    specs = replicas(stage).values()
    assert {spec["priorityClassName"] for spec in specs} == {"nightcap"}
