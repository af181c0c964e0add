"""What is to be said of an installation, from the objects that it consists of. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nightcap.cli.session import SYSTEM
from nightcap.cli.words import Line, Mark, human_age
from nightcap.contract.canary import CANARY_POLICY as CANARY

LEAST_MINOR: Final = 30
RENEWED_AT: Final = 2 / 3
_LATE: Final = 5 / 6
"""Of a root's life: renewal comes at two thirds; halfway from there to its end, it is late."""
REINSTALL: Final = "install again: kubectl apply -k of manifests/base, or make install"

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Root:
    """A certificate's life, epoch seconds."""

    begins_at: float
    ends_at: float


def check_version(version: Object) -> Line:
    """Whether the API server is new enough."""
    said = str(version.get("gitVersion", "unknown"))
    minor = re.match(r"\d+", str(version.get("minor", "")))
    if str(version.get("major")) == "1" and minor is not None and int(minor[0]) < LEAST_MINOR:
        return Line(
            Mark.FAULT,
            f"the API server is Kubernetes {said}; native sidecars and admission policies need "
            f"1.{LEAST_MINOR}",
            "upgrade the cluster",
        )
    return Line(Mark.OK, f"the API server answers (Kubernetes {said})")


def check_crd(resources: Object | None) -> Line:
    """Whether captures are served; `resources` is the discovery of our group's version."""
    names = {r.get("name") for r in (resources or {}).get("resources") or ()}
    missing = {"packetcaptures", "packetcaptures/status"} - names
    if missing:
        return Line(
            Mark.FAULT,
            f"the API server does not serve {', '.join(sorted(missing))} of nightcap.dev",
            REINSTALL,
        )
    return Line(Mark.OK, "captures (packetcaptures.nightcap.dev) are served")


def check_deployment(name: str, deployment: Object | None) -> Line:
    """Whether a program runs."""
    if deployment is None:
        return Line(Mark.FAULT, f"deployment {name} does not exist", REINSTALL)
    wanted = int(deployment.get("spec", {}).get("replicas", 1))
    ready = int((deployment.get("status") or {}).get("readyReplicas") or 0)
    look = f"kubectl -n {SYSTEM} describe pods -l app.kubernetes.io/name={name}; then its logs"
    if wanted == 0:
        advice = f"kubectl -n {SYSTEM} scale deployment/{name} --replicas=1"
        return Line(Mark.FAULT, f"deployment {name} is scaled to 0", advice)
    if ready == 0:
        return Line(Mark.FAULT, f"deployment {name}: 0 of {wanted} pods are ready", look)
    if ready < wanted:
        return Line(Mark.NOTE, f"deployment {name}: {ready} of {wanted} pods are ready", look)
    return Line(Mark.OK, f"deployment {name}: {ready} of {wanted} pods are ready")


def check_service(name: str, service: Object | None, slices: Sequence[Object]) -> Line:
    """Whether a Service leads to somebody."""
    if service is None:
        return Line(Mark.FAULT, f"service {name} does not exist", REINSTALL)
    ready = sum(
        len(endpoint.get("addresses") or ())
        for item in slices
        for endpoint in item.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    )
    if not ready:
        selector = (service.get("spec") or {}).get("selector") or {}
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        return Line(
            Mark.FAULT,
            f"service {name} has no ready endpoint",
            f"its selector has to find ready pods: kubectl -n {SYSTEM} get pods -l {labels}",
        )
    return Line(Mark.OK, f"service {name} has ready endpoints: {ready}")


def check_webhooks(kind: str, configuration: Object | None, trusted: str | None) -> Line:
    """Whether the API server would call our webhook, and believe it.

    Args:
        kind: `mutating` or `validating`.
        configuration: The object; None if it does not exist.
        trusted: PEM of the ConfigMap's roots; None if they are not known.
    """
    what = f"{kind} webhook configuration nightcap"
    repair = f"the controller repairs it: kubectl -n {SYSTEM} logs deployment/nightcap-controller"
    if configuration is None:
        return Line(Mark.FAULT, f"{what} does not exist", REINSTALL)
    entries = configuration.get("webhooks") or ()
    if not entries:
        return Line(Mark.FAULT, f"{what} names no webhook", REINSTALL)
    for entry in entries:
        name, client = entry.get("name"), entry.get("clientConfig") or {}
        service = client.get("service") or {}
        if (service.get("namespace"), service.get("name")) != (SYSTEM, "nightcap-webhook"):
            return Line(Mark.FAULT, f"{what}: {name} does not call nightcap-webhook", REINSTALL)
        if not client.get("caBundle"):
            return Line(Mark.FAULT, f"{what}: {name} has no caBundle", repair)
        if trusted is not None and _pem(client["caBundle"]) != trusted.strip():
            return Line(
                Mark.FAULT, f"{what}: caBundle of {name} is not that of ConfigMap nightcap-ca",
                repair,
            )  # fmt: skip
        if entry.get("failurePolicy") != "Ignore":
            return Line(
                Mark.FAULT,
                f"{what}: {name} has failurePolicy {entry.get('failurePolicy')}: "
                "a dead webhook would keep pods from starting",
                REINSTALL,
            )
    return Line(Mark.OK, f"{what} has its caBundle")


def _pem(bundle: str) -> str:
    try:
        return base64.b64decode(bundle).decode("ascii", "replace").strip()
    except binascii.Error:
        return ""


def check_roots(roots: Sequence[Root] | None, now: float) -> Line:
    """Whether the newest root lives, and was renewed in time; None: there is no bundle."""
    logs = f"kubectl -n {SYSTEM} logs deployment/nightcap-controller says why"
    if not roots:
        return Line(Mark.FAULT, "ConfigMap nightcap-ca holds no certificate", logs)
    newest = max(roots, key=lambda root: root.ends_at)
    left = newest.ends_at - now
    if left <= 0:
        return Line(Mark.FAULT, f"the CA expired {human_age(-left)} ago", logs)
    if newest.begins_at > now:
        return Line(
            Mark.FAULT,
            "the CA is not valid yet by this machine's clock",
            "compare the clocks of this machine and of the cluster's nodes",
        )
    if now - newest.begins_at > _LATE * (newest.ends_at - newest.begins_at):
        return Line(
            Mark.FAULT, f"the CA expires in {human_age(left)} and should be renewed by now", logs
        )
    return Line(Mark.OK, f"the CA is valid for {human_age(left)}; it renews itself")


@dataclass(frozen=True, slots=True)
class Policy:
    """A ValidatingAdmissionPolicy of ours, and a binding of it.

    Attributes:
        good: What is said when it is in force.
        consequence: What is said of its absence.
        binding_name: Where it is not the policy's.
        selects: Whether the binding holds for some namespaces or pods alone, as it has to.
    """

    name: str
    good: str
    consequence: str
    binding_name: str = ""
    selects: bool = False

    @property
    def binding(self) -> str:
        return self.binding_name or self.name


ORDERS_POLICY: Final = Policy(
    "nightcap-orders",
    good="orders are guarded",
    consequence="whoever may edit pods can forge orders",
)
BROUGHT_POLICY: Final = Policy(
    "nightcap-brought-orders",
    good="pods of namespaces that are not enabled bring no orders along",
    consequence="there whoever may create pods can forge orders",
    selects=True,
)
OPTED_OUT_POLICY: Final = Policy(
    "nightcap-brought-orders",
    good="pods that opt out bring no orders along",
    consequence="whoever may create pods can forge orders for those that opt out",
    binding_name="nightcap-brought-orders-opted-out",
    selects=True,
)
SIDECAR_POLICY: Final = Policy(
    "nightcap-sidecar",
    good="pods whose sidecar another webhook breaks are refused",
    consequence="a pod whose sidecar another webhook breaks waits for ever",
)
CANARY_POLICY: Final = Policy(
    CANARY,
    good="account nightcap-canary creates pods in dry runs alone",
    consequence="account nightcap-canary can create pods, and the controller as that account",
)

POLICIES: Final = (
    ORDERS_POLICY,
    BROUGHT_POLICY,
    OPTED_OUT_POLICY,
    SIDECAR_POLICY,
    CANARY_POLICY,
)
"""All of ours, with each of their bindings."""


def check_policy(ours: Policy, policy: Object | None, binding: Object | None) -> Line:
    """Whether a policy of ours is in force.

    Args:
        ours: Which one.
        policy: Its object; None if it does not exist.
        binding: Its binding; None if it does not exist.
    """

    def fault(what: str) -> Line:
        return Line(Mark.FAULT, f"{what}: {ours.consequence}", REINSTALL)

    if policy is None:
        return fault(f"validating admission policy {ours.name} does not exist")
    if binding is None:
        by = f" by {ours.binding_name}" if ours.binding_name else ""
        return fault(f"validating admission policy {ours.name} is not bound{by}")
    spec = binding.get("spec") or {}
    if spec.get("policyName") != ours.name:
        return fault(f"binding {ours.binding} binds policy {spec.get('policyName')}")
    if "Deny" not in (spec.get("validationActions") or ()):
        return fault(f"binding {ours.binding} does not deny")
    if ours.selects and not spec.get("matchResources"):
        return Line(
            Mark.FAULT,
            f"binding {ours.binding} holds for every pod (no matchResources): none can be injected",
            REINSTALL,
        )
    if spec.get("matchResources") and not ours.selects:
        return Line(
            Mark.NOTE,
            f"binding {ours.binding} holds for some namespaces alone (matchResources)",
            f"elsewhere {ours.consequence}",
        )
    return Line(Mark.OK, f"{ours.good} (admission policy {ours.name})")


def no_canary() -> Line:
    """What is to be said where the canary was left out of the installation."""
    return Line(
        Mark.NOTE,
        "the canary is not installed: no namespace is proved before a pod is created there",
        "leave canary.yaml in the overlay, if that is not meant",
    )


def check_refusal(accepted: bool, said: str) -> Line:
    """What came of a filter that does not compile: only our webhook can know that."""
    what = "a filter that does not compile"
    advice = (
        f"the API server cannot call it: compare kubectl -n {SYSTEM} get endpointslices, "
        "and look for a network policy between API server and nightcap-webhook"
    )
    if accepted:
        return Line(Mark.FAULT, f"{what} was accepted: the webhook was not asked", advice)
    if "packetcaptures.nightcap.dev" in said or "filter" in said:
        return Line(Mark.OK, "the webhook is reached: it refuses a filter that does not compile")
    return Line(Mark.NOTE, f"whether the webhook is reached is not known: {said}")


def check_canary(namespace: str, level: str | None, has_sidecar: bool) -> Line:
    """What came of a pod that was created in a server-side dry run."""
    what = f"namespace {namespace}"
    if level == "restricted":
        return Line(
            Mark.NOTE,
            f"{what} is enabled but enforces the Pod Security level restricted: no sidecars there",
            "enforce baseline there, or disable it: captures need NET_RAW",
        )
    if has_sidecar:
        return Line(Mark.OK, f"{what}: a new pod gets its sidecar")
    return Line(
        Mark.FAULT,
        f"{what} is enabled, but a new pod gets no sidecar",
        f"kubectl -n {SYSTEM} logs deployment/nightcap-webhook",
    )


def check_bare_pods(namespace: str, bare: Mapping[str, int]) -> Line:
    """Pods without a sidecar, by reason."""
    if not bare:
        return Line(Mark.OK, f"namespace {namespace}: every pod has its sidecar")
    parts = "; ".join(f"{count}: {reason}" for reason, count in sorted(bare.items()))
    return Line(
        Mark.NOTE,
        f"namespace {namespace}: pods without sidecar: {parts}",
        f"kubectl nightcap enable {namespace} names them",
    )
