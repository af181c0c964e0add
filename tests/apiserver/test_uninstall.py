"""What is there before the webhook is called, and what removing by kubectl alone leaves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.installation import is_webhook_called
from demo.kubectl import Kubectl
from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH
from nightcap.kube.errors import Forbidden
from tests.apiserver.private import BASE, PrivateApi
from tests.apiserver.site import bare_pod, eventually
from tests.cluster import programs

DEVELOPER = {"Impersonate-User": "developer"}
OURS = "mutatingwebhookconfigurations,validatingwebhookconfigurations,validatingadmissionpolicies,\
validatingadmissionpolicybindings,clusterroles,clusterrolebindings,customresourcedefinitions,\
priorityclasses"
GUARD = {
    f"{kind}.admissionregistration.k8s.io/{name}"
    for kind, names in {
        "validatingadmissionpolicy": ("nightcap-orders", "nightcap-brought-orders"),
        "validatingadmissionpolicybinding": (
            "nightcap-orders",
            "nightcap-brought-orders",
            "nightcap-brought-orders-opted-out",
        ),
    }.items()
    for name in names
}
ORDERS = '{"v":1,"collectors":[],"captures":[]}'


@pytest.fixture
def api(tmp_path: Path) -> Iterator[PrivateApi]:
    """A server with all of our manifests, one pod with a sidecar, and a developer."""
    api = PrivateApi(tmp_path)
    try:
        # Twice: kinds and namespaces have to be there for what comes after them.
        api.kubectl("apply", "--server-side", "-k", str(BASE))
        done = api.kubectl("apply", "--server-side", "-k", str(BASE))
        assert done.returncode == 0, done.stderr
        api.namespace("shop", **{keys.INJECT: keys.INJECT_ENABLED})
        pod = bare_pod()
        pod["metadata"] = {"name": "web", "annotations": {keys.INJECTED: "{}"}}
        api.create_pod("shop", pod, dry_run=False)
        for rule in (
            ["role", "developer", "--verb=get,patch", "--resource=pods"],
            ["rolebinding", "developer", "--role=developer", "--user=developer"],
        ):
            made = api.kubectl("-n", "shop", "create", *rule)
            assert made.returncode == 0, made.stderr
        yield api
    finally:
        api.close()


def left(api: PrivateApi) -> set[str]:
    listed = api.kubectl("get", OURS, "-o", "name")
    assert listed.returncode == 0, listed.stderr
    return {name for name in listed.stdout.split() if "nightcap" in name}


def why_refused(api: PrivateApi, orders: str) -> str:
    """What a developer is told who writes orders into the pod; empty when it is done."""
    body = {"metadata": {"annotations": {keys.ORDERS: orders}}}
    try:
        api.client.request(
            "PATCH",
            paths.pod("shop", "web"),
            body=body,
            content_type=MERGE_PATCH,
            headers=DEVELOPER,
        )
    except Forbidden as error:
        return error.message
    return ""


def remove(api: PrivateApi, *selector: str) -> None:
    # No controller empties the namespace here, so its end is not waited for.
    done = api.kubectl("delete", "-k", str(BASE), "--ignore-not-found", "--wait=false", *selector)
    assert done.returncode == 0, done.stderr


def test_an_installation_is_not_ready_before_the_webhook_is_called(api: PrivateApi) -> None:
    """All objects are there, and nobody behind them: filters that are none are let through."""
    binary = programs.program(programs.KUBERNETES, "kubectl")
    assert not is_webhook_called(Kubectl(str(binary), api.kubeconfig))


def test_orders_stay_guarded_until_the_policy_is_removed_last(api: PrivateApi) -> None:
    eventually("the policy is in force", lambda: "written by" in why_refused(api, ORDERS))
    remove(api, "-l", "nightcap.dev/remove!=last")
    # Kinds of objects go behind the answer, when their objects are gone.
    eventually("only the guard is left", lambda: left(api) == GUARD)
    assert "written by the Nightcap controller alone" in why_refused(api, ORDERS)
    remove(api)
    eventually("nothing is left", lambda: left(api) == set())
    # Said in docs/operations.md: with the policy the guard goes, as long as pods have sidecars.
    eventually("nobody is refused", lambda: not why_refused(api, ORDERS))
    pod = json.loads(api.client.request("GET", paths.pod("shop", "web")))
    assert pod["metadata"]["annotations"][keys.ORDERS] == ORDERS
