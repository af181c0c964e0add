"""Namespaces are proved by dry runs, and the account that does so can do nothing else."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from controller.canary import CanaryProver
from controller.proving import Proof
from nightcap.contract.canary import canary_pod
from nightcap.contract.objects import Namespace
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError, Forbidden
from nightcap.kube.events import EventRecorder
from nightcap.kube.reflector import Reflector
from tests.apiserver.private import Installation, PrivateApi, own_kubeconfig
from tests.apiserver.site import SYSTEM, eventually, manifest

CANARY = f"system:serviceaccount:{SYSTEM}:nightcap-canary"
DRY = {"dryRun": "All"}


@pytest.fixture(scope="module")
def controller(api: PrivateApi, installation: Installation) -> KubeClient:
    """The controller's own client, with the canary's account and policy in force."""
    api.apply(*manifest("canary.yaml"))
    client = KubeClient.from_environment(str(own_kubeconfig(api, "nightcap-controller")))
    name = api.namespace("policy-in-force")

    def refuses() -> bool:
        try:
            create(client, name)
        except Forbidden as error:
            return "dry runs alone" in error.message
        return False

    eventually("the policy is in force", refuses)
    return client


def create(client: KubeClient, namespace: str, query: dict[str, str] | None = None) -> Any:
    answer = client.request(
        "POST",
        paths.pods(namespace),
        query=query,
        body=canary_pod("nightcap-canary-"),
        headers={"Impersonate-User": CANARY},
    )
    return json.loads(answer)


@pytest.fixture
def prover(controller: KubeClient) -> Iterator[CanaryProver]:
    watch = Reflector(
        controller, paths.namespaces(), msgspec.json.Decoder(Namespace).decode, name="namespaces"
    )
    watch.start()
    assert watch.wait_synced(30)
    recorder = EventRecorder(controller, "controller")
    yield CanaryProver(controller, SYSTEM, watch.items, lambda: False, recorder, lambda: True)
    assert recorder.flush()
    watch.stop()


def proof_of(prover: CanaryProver, name: str, expected: Proof) -> str:
    """Look until a namespace has a verdict, which has to be the expected; what was said."""

    def verdict() -> Any:
        prover.look_once()
        return prover.verdicts.get(name)

    found = eventually(f"a verdict on {name}", verdict)
    assert found.proof is expected, found
    return str(found.said)


def events(api: PrivateApi, name: str) -> list[dict[str, Any]]:
    told = api.kubectl("-n", name, "get", "events", "-o", "json")
    items: list[dict[str, Any]] = json.loads(told.stdout)["items"]
    return items


def test_the_account_creates_pods_in_dry_runs_alone(
    api: PrivateApi, controller: KubeClient, namespace: Callable[..., str]
) -> None:
    name = namespace()
    assert create(controller, name, DRY)["metadata"]["name"].startswith("nightcap-canary-")
    with pytest.raises(Forbidden, match="dry runs alone"):
        create(controller, name)
    assert json.loads(api.client.request("GET", paths.pods(name)))["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", paths.pods(), None),
        ("DELETE", paths.pod("default", "x"), None),
        ("GET", paths.secrets(SYSTEM), None),
        ("POST", paths.config_maps("default"), {"metadata": {"name": "x"}}),
        ("POST", f"{paths.pod('default', 'x')}/binding", {"target": {"name": "node"}}),
        ("POST", f"{paths.pod('default', 'x')}/eviction", {"metadata": {"name": "x"}}),
    ],
)
def test_the_account_may_do_nothing_else(
    controller: KubeClient, method: str, path: str, body: Any
) -> None:
    with pytest.raises(Forbidden):
        controller.request(method, path, body=body, headers={"Impersonate-User": CANARY})


def test_the_controller_itself_may_not_create_pods_nor_act_as_others(
    controller: KubeClient, namespace: Callable[..., str]
) -> None:
    name = namespace()
    for headers in ({}, {"Impersonate-User": f"system:serviceaccount:{name}:default"}):
        with pytest.raises(Forbidden):
            controller.request(
                "POST", paths.pods(name), query=DRY, body=canary_pod("x-"), headers=headers
            )


def test_what_is_proved_of_each_namespace(
    api: PrivateApi, prover: CanaryProver, namespace: Callable[..., str]
) -> None:
    level = "pod-security.kubernetes.io/enforce"
    proof_of(prover, namespace(), Proof.PROVEN)
    proof_of(prover, namespace(**{level: "baseline"}), Proof.PROVEN)
    proof_of(prover, namespace(**{level: "restricted"}), Proof.RESTRICTED)
    full = namespace()
    api.quota(full, "none", {"pods": "0"})
    said = proof_of(prover, full, Proof.UNKNOWN)
    assert "exceeded quota" in said
    assert events(api, full) == []
    shown = {
        sample.labels["proof"]: sample.value
        for family in prover.collect()
        for sample in family.samples
    }
    assert shown["proven"] >= 2
    assert shown["unknown"] == 1


def test_a_rule_of_others_that_refuses_the_sidecar_is_found_before_a_pod_is(
    api: PrivateApi, prover: CanaryProver, namespace: Callable[..., str]
) -> None:
    name = namespace()
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-root-here"},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ],
            },
            "validations": [
                {
                    "expression": "!has(object.spec.initContainers)",
                    "message": "no init containers here",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "no-root-here"},
        "spec": {"policyName": "no-root-here", "validationActions": ["Deny"]},
    }
    api.apply(policy, binding)

    def refused() -> bool:
        try:
            api.create_pod(name, canary_pod("x-"))
        except ApiError:
            return True
        return False

    eventually("the rule is in force", refused)
    assert "no init containers here" in proof_of(prover, name, Proof.REFUSED)
    eventually("it is told", lambda: events(api, name))
    (event,) = events(api, name)
    assert event["reason"] == "SidecarRefused"
    assert "nightcap.dev/inject=disabled" in event["message"]


def test_a_webhook_that_is_away_is_found_though_no_pod_is_created(
    api: PrivateApi,
    installation: Installation,
    prover: CanaryProver,
    namespace: Callable[..., str],
) -> None:
    name = namespace()
    installation.configure(injecting=False)
    try:
        eventually(
            "the webhook is away",
            lambda: "initContainers" not in api.create_pod(name, canary_pod("x-"))["spec"],
        )
        proof_of(prover, name, Proof.NOT_INJECTED)
    finally:
        installation.configure(injecting=True)
    eventually("it is told", lambda: events(api, name))
    assert events(api, name)[0]["reason"] == "NotInjected"
    eventually(
        "pods are injected again",
        lambda: "initContainers" in api.create_pod(name, canary_pod("x-"))["spec"],
    )


def test_a_replica_that_does_not_lead_any_more_shows_nothing(
    controller: KubeClient, prover: CanaryProver, namespace: Callable[..., str]
) -> None:
    proof_of(prover, namespace(), Proof.PROVEN)
    prover._may_ask = lambda: False
    prover.look_once()
    assert prover.verdicts == {}


def test_without_the_right_nothing_is_proved_and_nobody_is_told(
    api: PrivateApi, prover: CanaryProver, namespace: Callable[..., str]
) -> None:
    name = namespace()
    api.kubectl("-n", SYSTEM, "delete", "rolebinding", "nightcap-canary")
    try:

        def is_quiet() -> bool:
            prover.look_once()
            return prover.verdicts == {}

        eventually("it has given up", is_quiet)
    finally:
        api.apply(*manifest("canary.yaml"))
    assert events(api, name) == []
