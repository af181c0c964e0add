"""Kinds of pods whose node this machine cannot be: the API server takes them with the sidecar.

No AppArmor and no user namespaces for pods here; tests/e2e/test_pod_kinds.py has those that run.
"""

from collections.abc import Callable
from typing import Any

import pytest

from nightcap.contract import keys
from tests.apiserver.private import PrivateApi
from tests.apiserver.test_resources import a_pod, sidecar

LOCALHOST = {"type": "Localhost", "localhostProfile": "made-for-the-application"}
LEGACY = "container.apparmor.security.beta.kubernetes.io/app"


@pytest.mark.parametrize(
    ("spec", "ours"),
    [
        # A profile made for the application must not be ours.
        ({"securityContext": {"appArmorProfile": LOCALHOST}}, {"type": "RuntimeDefault"}),
        # A node without AppArmor takes these, and would refuse a pod that names a profile.
        ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, None),
        ({}, None),
    ],
    ids=["localhost", "unconfined", "none"],
)
def test_apparmor_of_the_pod(
    api: PrivateApi, namespace: Callable[..., str], spec: dict[str, Any], ours: object
) -> None:
    created = api.create_pod(namespace(), a_pod(**spec))
    assert sidecar(created)["securityContext"].get("appArmorProfile") == ours
    assert created["spec"].get("securityContext", {}) == spec.get("securityContext", {})


def test_apparmor_of_old_annotations_stays_the_applications(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    pod = a_pod()
    pod["metadata"]["annotations"] = {LEGACY: "localhost/made-for-the-application"}
    created = api.create_pod(namespace(), pod)
    assert "appArmorProfile" not in sidecar(created)["securityContext"]
    annotations = created["metadata"]["annotations"]
    assert {key for key in annotations if "apparmor" in key} == {LEGACY}


def test_a_runtime_class_for_windows_says_so(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    """Its node selector is in the pod before any webhook is asked."""
    api.apply(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "windows-2025"},
            "handler": "runhcs-wcow-process",
            "scheduling": {"nodeSelector": {"kubernetes.io/os": "windows"}},
        }
    )
    created = api.create_pod(namespace(), a_pod(runtimeClassName="windows-2025"))
    assert "initContainers" not in created["spec"]
    assert created["metadata"]["annotations"] == {keys.NOT_INJECTED: "windows"}


@pytest.mark.parametrize(
    "spec",
    [
        {"hostUsers": False},
        {"hostUsers": False, "securityContext": {"fsGroup": 2000, "runAsNonRoot": True}},
        {"securityContext": {"seLinuxOptions": {"type": "made_for_the_application_t"}}},
        {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}},
        {"securityContext": {"supplementalGroupsPolicy": "Strict", "fsGroup": 2000}},
        {"runtimeClassName": "kata"},
        {"hostPID": True},
        {"hostname": "web", "setHostnameAsFQDN": True},
        {"terminationGracePeriodSeconds": 0},
        {"schedulingGates": [{"name": "example.com/wait"}]},
    ],
    ids=lambda spec: ",".join(spec),
)
def test_what_a_pod_says_of_itself_is_kept(
    api: PrivateApi, namespace: Callable[..., str], spec: dict[str, Any]
) -> None:
    if "runtimeClassName" in spec:
        api.apply(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": "kata"},
                "handler": "kata",
            }
        )
    created = api.create_pod(namespace(), a_pod(**spec))
    assert sidecar(created)["securityContext"]["runAsUser"] == 0
    # As it would be without us: an older API server does not know every field.
    without = api.create_pod(api.namespace("not-opted-in"), a_pod(**spec))
    assert "initContainers" not in without["spec"]
    assert [created["spec"].get(key) for key in spec] == [without["spec"].get(key) for key in spec]
