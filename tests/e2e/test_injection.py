"""Which pods get the sidecar, and what it does to them, on the real API server and kubelet."""

import json
from collections.abc import Iterator

import pytest

from demo.files import Retrieval
from demo.kubectl import wait_for
from demo.stage import Stage
from tests.e2e.shop import INJECTED, ORDERS, Shop


@pytest.fixture
def baseline_shop(stage: Stage) -> Iterator[Shop]:
    opened = Shop.open(stage, "baseline", {"pod-security.kubernetes.io/enforce": "baseline"})
    yield opened
    opened.close()


@pytest.fixture
def restricted_shop(stage: Stage) -> Iterator[Shop]:
    opened = Shop.open(stage, "restricted", {"pod-security.kubernetes.io/enforce": "restricted"})
    yield opened
    opened.close()


def test_sidecar_is_first_and_has_no_more_than_the_right_to_capture(shop: Shop) -> None:
    shop.start(shop.pod("web", securityContext={"runAsNonRoot": True, "runAsUser": 1000}))
    sidecar = shop.get("pod", "web")["spec"]["initContainers"][0]
    assert sidecar["name"] == "nightcap"
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}
    assert mounts["/var/run/secrets/kubernetes.io/serviceaccount"] == "nightcap-no-api-token"
    assert "postStart" not in sidecar.get("lifecycle", {})  # dormant: it waits for nothing
    assert json.loads(shop.annotations("web")[INJECTED])["orders"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"labels": {"nightcap.dev/inject": "disabled"}}, id="opted out"),
        pytest.param({"hostNetwork": True}, id="host network"),
        pytest.param({"volumes": [{"name": "nightcap-spool", "emptyDir": {}}]}, id="our volume"),
    ],
)
def test_pod_is_admitted_without_sidecar(shop: Shop, changes: dict[str, object]) -> None:
    shop.create(shop.pod("web", **changes))
    assert shop.containers("web") == []
    assert INJECTED not in shop.annotations("web")


def test_orders_of_a_template_do_not_survive(shop: Shop) -> None:
    forged = {ORDERS: '{"v":1,"captures":[]}', INJECTED: "{}"}
    shop.create(shop.pod("web", annotations=forged))
    assert ORDERS not in shop.annotations("web")
    assert shop.annotations("web")[INJECTED] != "{}"


def test_pod_in_a_restricted_namespace_is_admitted_unchanged(restricted_shop: Shop) -> None:
    pod = restricted_shop.pod("web")
    pod["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    said = restricted_shop.run(
        "create", "-f", "-", "--warnings-as-errors=false", stdin=json.dumps(pod)
    )
    assert "created" in said
    assert restricted_shop.containers("web") == []


def test_pod_in_a_baseline_namespace_captures_for_real(
    baseline_shop: Shop, retrieval: Retrieval
) -> None:
    shop = baseline_shop
    shop.start(shop.pod("web"))
    shop.create(shop.capture("all", filter="udp port 7777"))
    shop.wait_open("all")
    shop.send_udp("web", "192.0.2.1", 7777, ["one", "two", "three"])
    token = shop.person("analyst", "nightcap-files")

    def payloads() -> list[bytes] | None:
        files = shop.files(retrieval, "all", token)
        found = [bytes(packet["UDP"].payload) for file in files for packet in file.packets]
        return found if len(found) >= 3 else None

    assert wait_for("three packets", payloads, 30) == [b"one", b"two", b"three"]


def test_guaranteed_pod_stays_guaranteed_and_burstable_burstable(shop: Shop) -> None:
    amount = {"cpu": "100m", "memory": "64Mi"}
    guaranteed = shop.pod("guaranteed")
    guaranteed["spec"]["containers"][0]["resources"] = {"requests": amount, "limits": amount}
    burstable = shop.pod("burstable")
    burstable["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
    shop.create(guaranteed, burstable, shop.pod("best-effort"))
    classes = {
        name: shop.get("pod", name)["status"]["qosClass"]
        for name in ("guaranteed", "burstable", "best-effort")
    }
    assert classes == {
        "guaranteed": "Guaranteed",
        "burstable": "Burstable",
        "best-effort": "BestEffort",
    }
    for name in classes:
        assert shop.containers(name) == ["nightcap"]


def test_pod_that_the_namespaces_quota_has_no_room_for_runs_without_sidecar(shop: Shop) -> None:
    """The quota's controller keeps its status here; tests/apiserver has the other rules."""
    amount = {"cpu": "100m", "memory": "64Mi"}
    shop.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "tight"},
            "spec": {"hard": {"requests.cpu": "100m", "requests.memory": "1Gi"}},
        }
    )
    wait_for(
        "the quota's status",
        lambda: shop.get("resourcequota", "tight").get("status", {}).get("hard"),
        30,
    )
    pod = shop.pod("web")
    pod["spec"]["containers"][0]["resources"] = {"requests": amount, "limits": amount}
    shop.start(pod)
    assert shop.containers("web") == []
    found = shop.get("pod", "web")
    assert found["status"]["qosClass"] == "Guaranteed"
