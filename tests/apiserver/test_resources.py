"""Quotas and LimitRanges: the API server's own judgement of what we made of the pod."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from nightcap.kube.errors import ApiError
from tests.apiserver import minors, site
from tests.apiserver.private import Installation, PrivateApi
from tests.cluster import programs

FULL = {"cpu": "100m", "memory": "128Mi"}
GUARANTEED = {"requests": FULL, "limits": FULL}
BURSTABLE = {"requests": FULL}


def a_pod(resources: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": "registry.local/app:1", "resources": resources or {}}
    return {"metadata": {"generateName": "web-"}, "spec": {"containers": [container], **spec}}


def eventually(
    api: PrivateApi, namespace: str, pod: dict[str, Any], *, injected: bool
) -> dict[str, Any]:
    """The pod once the webhook's watches have caught up with the namespace."""
    deadline = time.monotonic() + 15
    while True:
        try:
            found = api.create_pod(namespace, pod)
        except ApiError as error:
            said: object = error
        else:
            said = found["spec"].get("initContainers")
            if bool(said) is injected:
                return found
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["initContainers"][0]
    assert found["name"] == "nightcap"
    return found


def last_decision(installation: Installation, namespace: str) -> dict[str, Any]:
    """The one on the pod that was left there at last; its line comes after its answer."""

    def left() -> dict[str, Any] | None:
        said = [d for d in installation.decisions() if d["namespace"] == namespace]
        return said[-1] if said and said[-1]["decision"] == "skipped" else None

    found: dict[str, Any] = site.eventually(f"a pod is left in {namespace}", left)
    return found


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({}, "BestEffort"), (BURSTABLE, "Burstable"), (GUARANTEED, "Guaranteed")],
    ids=["best-effort", "burstable", "guaranteed"],
)
def test_the_class_of_a_pod_is_kept(
    api: PrivateApi, namespace: Callable[..., str], resources: dict[str, Any], expected: str
) -> None:
    created = api.create_pod(namespace(), a_pod(resources))
    assert sidecar(created)
    assert created["status"]["qosClass"] == expected


def test_limits_are_zero_where_a_quota_counts_them(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    name = namespace()
    api.quota(name, "all", {"limits.cpu": "100m", "limits.memory": "128Mi", "requests.cpu": "50m"})
    limited = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": FULL}
    created = eventually(api, name, a_pod(limited), injected=True)
    assert sidecar(created)["resources"]["limits"] == {"cpu": "0", "memory": "0"}
    assert created["status"]["qosClass"] == "Burstable"


def test_a_quota_without_headroom_takes_a_guaranteed_pod_without_sidecar(
    api: PrivateApi, namespace: Callable[..., str], installation: Installation
) -> None:
    name = namespace()
    # Exactly what the application asks for.
    api.quota(
        name,
        "tight",
        {"requests.cpu": "1", "requests.memory": "1Gi"},
        used={"requests.cpu": "900m"},
    )
    created = eventually(api, name, a_pod(GUARANTEED), injected=False)
    assert created["status"]["qosClass"] == "Guaranteed"
    decision = last_decision(installation, name)
    assert (decision["reason"], decision["detail"]) == (
        "quota",
        "ResourceQuota tight: requests.cpu is 1, of which 900m is used",
    )
    # A pod that reserves nothing for its sidecar has room.
    assert sidecar(eventually(api, name, a_pod(BURSTABLE), injected=True))


def test_a_quota_for_other_pods_is_no_obstacle(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    name = namespace()
    api.quota(name, "jobs", {"requests.cpu": "0"}, scopes=["Terminating"])
    assert sidecar(eventually(api, name, a_pod(GUARANTEED), injected=True))
    ends = a_pod(GUARANTEED, activeDeadlineSeconds=60)
    with pytest.raises(ApiError, match="exceeded quota: jobs"):
        api.create_pod(name, ends)


@pytest.mark.parametrize("resources", [BURSTABLE, GUARANTEED], ids=["burstable", "guaranteed"])
def test_a_least_memory_takes_the_pod_without_sidecar(
    api: PrivateApi,
    namespace: Callable[..., str],
    installation: Installation,
    resources: dict[str, Any],
) -> None:
    name = namespace()
    api.limit_range(name, {"type": "Container", "min": {"memory": "100Mi"}})
    eventually(api, name, a_pod(resources), injected=False)
    decision = last_decision(installation, name)
    assert decision["reason"] == "limit-range"
    assert "at least 100Mi of memory for each container" in decision["detail"]


def test_a_most_for_the_whole_pod_is_kept_by_limits_of_zero(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    """Our container's share of the defaults would exceed what the pod may have in all."""
    name = namespace()
    api.limit_range(
        name,
        {"type": "Container", "default": FULL, "defaultRequest": {"cpu": "10m", "memory": "16Mi"}},
        {"type": "Pod", "max": FULL},
    )
    created = eventually(api, name, a_pod(), injected=True)
    assert sidecar(created)["resources"]["limits"] == {"cpu": "0", "memory": "0"}


def test_defaults_of_the_namespace_are_left_to_it(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    name = namespace()
    api.limit_range(name, {"type": "Container", "default": FULL, "defaultRequest": FULL})
    created = eventually(api, name, a_pod({"requests": {"cpu": "10m"}}), injected=True)
    resources = sidecar(created)["resources"]
    assert resources["requests"] == {"cpu": "0", "memory": "0"}
    assert resources["limits"] == FULL


def test_a_ratio_of_limit_to_request_takes_no_zero(
    api: PrivateApi, namespace: Callable[..., str], installation: Installation
) -> None:
    name = namespace()
    api.limit_range(name, {"type": "Container", "maxLimitRequestRatio": {"memory": "2"}})
    half = {"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}}
    eventually(api, name, a_pod(half), injected=False)
    assert last_decision(installation, name)["reason"] == "limit-range"
    # Guaranteed sidecars have a ratio of one.
    assert sidecar(eventually(api, name, a_pod(GUARANTEED), injected=True))


def test_the_spool_obeys_the_default_of_ephemeral_storage(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    name = namespace()
    storage = {"ephemeral-storage": "100Mi"}
    api.limit_range(name, {"type": "Container", "default": storage, "max": storage})
    created = eventually(api, name, a_pod(), injected=True)
    ours = sidecar(created)
    size = str(100 * 2**20)
    assert ours["resources"]["limits"]["ephemeral-storage"] == size
    assert ours["resources"]["requests"]["ephemeral-storage"] == "0"
    environ = {variable["name"]: variable.get("value") for variable in ours["env"]}
    assert environ["NIGHTCAP_SPOOL_BYTES"] == str(68 * 2**20)
    volumes = {volume["name"]: volume for volume in created["spec"]["volumes"]}
    assert volumes["nightcap-spool"]["emptyDir"]["sizeLimit"] == size


def test_a_default_too_small_for_any_spool_takes_the_pod_without(
    api: PrivateApi, namespace: Callable[..., str], installation: Installation
) -> None:
    name = namespace()
    api.limit_range(name, {"type": "Container", "default": {"ephemeral-storage": "20Mi"}})
    eventually(api, name, a_pod(), injected=False)
    assert "the spool needs 48Mi" in last_decision(installation, name)["detail"]


@pytest.mark.skipif(
    minors.wanted(os.environ) is programs.KUBERNETES_OLDEST,
    reason="the oldest minor drops resources of whole pods before anybody sees them",
)
def test_a_budget_of_the_pod_is_lived_within(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    pod = a_pod(GUARANTEED)
    pod["spec"]["resources"] = GUARANTEED  # nothing left beside the application
    created = api.create_pod(namespace(), pod)
    assert sidecar(created)["resources"] == {"requests": {"cpu": "0", "memory": "0"}}
    assert created["status"]["qosClass"] == "Guaranteed"
