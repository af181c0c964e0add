"""`kubectl nightcap doctor` on installations that are broken one after the other, and mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.kubectl import Kubectl, NotInTimeError, wait_for
from demo.stage import Stage
from tests.e2e.person import Person, person
from tests.e2e.shop import CAPTURES, Shop

SYSTEM = ("-n", "nightcap-system")
TTL = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/ttlAfterFinished"
PROGRAMS = {"nightcap-controller": 2, "nightcap-webhook": 2, "nightcap-retrieval": 1}


class Doctor:
    """Asks until it says what it should; what it says is about the whole cluster."""

    def __init__(self, person: Person, namespace: str) -> None:
        self._person = person
        self._namespace = namespace

    def finds(self, *words: str) -> None:
        """Wait until each of these is in a line that is a fault and says what to do."""
        said = ""

        def all_found() -> bool:
            nonlocal said
            answer = self._person("doctor", "-n", self._namespace)
            said = answer.out
            lines = said.splitlines()
            faults = [
                text
                for text, advice in zip(lines, [*lines[1:], ""], strict=True)
                if text.startswith("fault") and advice.strip().startswith("->")
            ]
            found = all(any(each in text for text in faults) for each in words)
            return found and answer.code == 1

        try:
            wait_for("the faults", all_found, 30)
        except NotInTimeError as error:
            raise AssertionError(f"doctor does not say {words} of:\n{said}") from error

    def is_content(self) -> None:
        """Wait until nothing is a fault any more."""
        said = ""

        def none_found() -> bool:
            nonlocal said
            answer = self._person("doctor", "-n", self._namespace)
            said = answer.out
            return answer.code == 0

        try:
            wait_for("no fault", none_found, 60)
        except NotInTimeError as error:
            raise AssertionError(f"doctor still finds:\n{said}") from error


@pytest.fixture
def admin(stage: Stage) -> Person:
    assert stage.kubectl.kubeconfig is not None
    return Person(stage.kubectl.kubeconfig)


def bare(item: dict[str, Any]) -> str:
    """An object as it can be made again."""
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        item["metadata"].pop(field, None)
    return json.dumps(item)


@contextmanager
def deleted(kubectl: Kubectl, kind: str, name: str, *where: str) -> Iterator[None]:
    item = kubectl.json(*where, "get", kind, name)
    kubectl.delete(*where, kind, name)
    try:
        yield
    finally:
        kubectl.run(*where, "create", "-f", "-", stdin=bare(item))


@contextmanager
def patched(
    kubectl: Kubectl, target: tuple[str, ...], change: list[dict[str, Any]]
) -> Iterator[None]:
    """A JSON patch of replacements and removals, taken back afterwards."""
    kind_and_name = target[-2:]
    before = kubectl.json(*target[:-2], "get", *kind_and_name)

    def patch(operations: list[dict[str, Any]]) -> None:
        kubectl.run(
            *target[:-2], "patch", *kind_and_name, "--type=json", "-p", json.dumps(operations)
        )

    patch(change)
    try:
        yield
    finally:
        back = {"replace": "replace", "remove": "add"}
        patch([{"op": back[step["op"]], "path": step["path"], "value": at(before, step["path"])}
               for step in change])  # fmt: skip


def at(value: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        key = part.replace("~1", "/")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@contextmanager
def network_policy(kubectl: Kubectl) -> Iterator[None]:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": "nightcap-system"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    kubectl.apply(json.dumps(policy))
    try:
        yield
    finally:
        kubectl.delete(*SYSTEM, "networkpolicy", "deny-all")


@contextmanager
def scaled_to_zero(kubectl: Kubectl, *names: str) -> Iterator[None]:
    for name in names:
        kubectl.run(*SYSTEM, "scale", f"deployment/{name}", "--replicas=0")
    try:
        for name in names:
            kubectl.run(
                *SYSTEM, "wait", "pod", "--for=delete", "--timeout=90s",
                "-l", f"app.kubernetes.io/name={name}",
            )  # fmt: skip
        yield
    finally:
        for name in names:
            kubectl.run(*SYSTEM, "scale", f"deployment/{name}", f"--replicas={PROGRAMS[name]}")
        for name in names:
            kubectl.rolled_out("nightcap-system", name)


@pytest.mark.alone
def test_each_broken_installation_is_told_by_its_fault(
    shop: Shop, admin: Person, stage: Stage, tmp_path: Path
) -> None:
    kubectl, doctor = stage.kubectl, Doctor(admin, shop.name)
    doctor.is_content()

    mutating, validating = "mutatingwebhookconfiguration", "validatingwebhookconfiguration"
    with deleted(kubectl, mutating, "nightcap"):
        doctor.finds(
            "mutating webhook configuration nightcap does not exist",
            f"namespace {shop.name} is enabled, but a new pod gets no sidecar",
        )
    fail = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]
    with patched(kubectl, (validating, "nightcap"), fail):
        doctor.finds("validating webhook configuration nightcap: ", "has failurePolicy Fail")
    with deleted(kubectl, "validatingadmissionpolicybinding", "nightcap-orders"):
        doctor.finds("policy nightcap-orders is not bound")
    policy = "validatingadmissionpolicy"
    with deleted(kubectl, f"{policy}binding", "nightcap-canary"):
        doctor.finds("policy nightcap-canary is not bound: account nightcap-canary can create pods")
    with deleted(kubectl, policy, "nightcap-sidecar"):
        doctor.finds("policy nightcap-sidecar does not exist")
    with patched(kubectl, ("crd", CAPTURES), [{"op": "remove", "path": TTL}]):
        doctor.finds("is of another release: it does not know spec.ttlAfterFinished")
    label = [{"op": "replace", "path": "/metadata/labels/nightcap.dev~1inject", "value": "enable"}]
    with patched(kubectl, ("namespace", shop.name), label):
        doctor.finds(f"namespace {shop.name} has the label nightcap.dev/inject=enable, which")
    selector = "/spec/selector/app.kubernetes.io~1name"
    nobody = [{"op": "replace", "path": selector, "value": "nobody"}]
    with patched(kubectl, (*SYSTEM, "service", "nightcap-collector"), nobody):
        doctor.finds("service nightcap-collector has no ready endpoint")
    with network_policy(kubectl):
        doctor.finds("network policy deny-all in nightcap-system lets nobody reach")
    stranger = person(shop, "stranger", tmp_path)
    said = stranger("doctor").out
    assert "you may not fetch files" in said
    assert "--role=nightcap-reach" in said

    with scaled_to_zero(kubectl, "nightcap-controller"):
        doctor.finds("deployment nightcap-controller is scaled to 0", "no controller leads")
        wiped = {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}
        # What is broken from here on the controller mends itself.
        kubectl.run("patch", mutating, "nightcap", "--type=json", "-p", json.dumps([wiped]))
        doctor.finds("privileged.inject.nightcap.dev has no caBundle")
        kubectl.delete(*SYSTEM, "configmap", "nightcap-ca")
        doctor.finds("ConfigMap nightcap-ca holds no certificate")
        kubectl.delete(*SYSTEM, "secret", "nightcap-webhook-tls")
        doctor.finds("Secret nightcap-webhook-tls does not exist")
        with scaled_to_zero(kubectl, "nightcap-webhook", "nightcap-retrieval"):
            try:
                doctor.finds(
                    "deployment nightcap-webhook is scaled to 0",
                    "service nightcap-webhook has no ready endpoint",
                    "the webhook was not asked",
                    "deployment nightcap-retrieval is scaled to 0",
                    "retrieval is not reached through the API server",
                )
            finally:
                # It makes the certificate without which the webhook cannot become ready.
                kubectl.run(*SYSTEM, "scale", "deployment/nightcap-controller", "--replicas=2")
    doctor.is_content()
