"""Every manifest that other people wrote, through the API server with and without the sidecar."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.errors import AlreadyExists, ApiError
from tests.apiserver.private import PrivateApi
from tests.unit.webhook.manifests import CORPUS, load_all, pods_in
from webhook.eligibility import is_windows
from webhook.facts import read_pod
from webhook.shape import Level

API_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
LEAST_ACCEPTED = {Level.PRIVILEGED: 60, Level.BASELINE: 40, Level.RESTRICTED: 5}
"""So that a corpus that nobody accepts any more shows nothing and does not pass."""


def corpus() -> dict[str, dict[str, Any]]:
    """Every pod, as its controller would create it."""
    found = {}
    for path in sorted((*CORPUS.rglob("*.yaml"), *CORPUS.rglob("*.yml"))):
        pods = [pod for document in load_all(path) for pod in pods_in(document)]
        for number, pod in enumerate(pods):
            meta = {k: v for k, v in (pod.get("metadata") or {}).items() if k != "namespace"}
            meta = {k: v for k, v in meta.items() if k in ("labels", "annotations")}
            meta["generateName"] = "corpus-"
            found[f"{path.relative_to(CORPUS)}:{number}"] = {**pod, "metadata": meta}
    return found


def prepare(api: PrivateApi, namespace: str, pods: dict[str, dict[str, Any]]) -> None:
    """The accounts that the pods name."""
    accounts = {
        pod["spec"].get("serviceAccountName") or pod["spec"].get("serviceAccount")
        for pod in pods.values()
    } - {None, "default"}
    for account in accounts:
        api.client.request(
            "POST",
            f"{paths.namespace(namespace)}/serviceaccounts",
            body={"metadata": {"name": account}},
        )
    for pod in pods.values():
        name = pod["spec"].get("priorityClassName") or ""
        if name and not name.startswith("system-"):
            body = {"metadata": {"name": name}, "value": 1000}
            try:
                api.client.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", body=body)
            except AlreadyExists:
                continue


def admitted(api: PrivateApi, namespace: str, pod: dict[str, Any]) -> dict[str, Any] | str:
    """The pod as the server has it, or why it is refused."""
    try:
        return api.create_pod(namespace, pod)
    except ApiError as error:
        return str(error)


def ours(pod: dict[str, Any]) -> dict[str, Any] | None:
    containers = pod["spec"].get("initContainers") or []
    return next((c for c in containers if c["name"] == keys.SIDECAR_CONTAINER), None)


def sent_again(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod that was admitted, as somebody creates a copy of it."""
    kept = {
        key: pod["metadata"][key] for key in ("labels", "annotations") if key in pod["metadata"]
    }
    return {"metadata": {"generateName": "corpus-", **kept}, "spec": pod["spec"]}


@pytest.mark.parametrize("level", list(Level))
def test_every_pod_that_is_accepted_without_us_is_accepted_with_us(
    api: PrivateApi, namespace: Callable[..., str], level: Level
) -> None:
    pods = corpus()
    enforce = {"pod-security.kubernetes.io/enforce": str(level)}
    with_us, without = namespace(**enforce), namespace(**enforce, **{keys.INJECT: "no"})
    for name in (with_us, without):
        prepare(api, name, pods)
    accepted = injected = 0
    for title, pod in pods.items():
        plain, found = admitted(api, without, pod), admitted(api, with_us, pod)
        assert isinstance(found, str) is isinstance(plain, str), (title, plain, found)
        if isinstance(plain, str) or isinstance(found, str):
            continue
        accepted += 1
        sidecar = ours(found)
        facts = read_pod(json.dumps(pod).encode())
        left_alone = bool(facts.spec.host_network) or is_windows(facts)
        assert (sidecar is None) is (left_alone or level is Level.RESTRICTED), title
        assert found["status"]["qosClass"] == plain["status"]["qosClass"], title
        if sidecar is None:
            continue
        injected += 1
        mounts = {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}
        assert mounts[API_TOKEN] == keys.NO_API_VOLUME, title
        assert sidecar["restartPolicy"] == "Always", title
        again = admitted(api, with_us, sent_again(found))
        assert not isinstance(again, str), (title, again)
        assert again["spec"] == found["spec"], title
        assert again["metadata"]["annotations"] == found["metadata"]["annotations"], title
    assert accepted >= LEAST_ACCEPTED[level]
    assert (injected > 0) is (level is not Level.RESTRICTED)
    print(f"{level}: {len(pods)} pods, {accepted} accepted, {injected} injected")
