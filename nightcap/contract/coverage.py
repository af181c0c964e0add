"""Whether a pod has a sidecar that can be ordered, and if not, why."""

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from nightcap.contract import keys
from nightcap.contract.objects import Namespace, Pod
from nightcap.contract.orders import ORDERS_VERSION

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a static pod's copy in the API."""
_ENFORCE = "pod-security.kubernetes.io/enforce"
_HOLDING = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PostStartHookError",
        "CrashLoopBackOff",
    }
)
"""The kubelet's words for a container that does not start by itself soon."""


def has_sidecar(pod: Pod) -> bool:
    """Whether our sidecar is in the pod; the annotation alone may be a copy of another pod's."""
    return pod.metadata.annotation(keys.INJECTED) is not None and any(
        container.name == keys.SIDECAR_CONTAINER for container in pod.spec.init_containers
    )


def takes_orders(pod: Pod) -> bool:
    """Whether a change of the orders annotation would reach a sidecar in this pod.

    The kubelet does not project changes into a pod that is terminating.
    """
    return (
        has_sidecar(pod)
        and not pod.is_over
        and pod.metadata.deletion_timestamp is None
        and orders_version(pod) >= ORDERS_VERSION
    )


def orders_version(pod: Pod) -> int:
    """The highest version of orders that the pod's sidecar reads.

    An annotation that says nothing readable comes from nobody's release of ours; the
    first version is what every sidecar reads.
    """
    try:
        value = json.loads(pod.metadata.annotation(keys.INJECTED) or "")
    except (ValueError, RecursionError):
        return 1
    version = value.get("orders") if isinstance(value, dict) else None
    return version if isinstance(version, int) and version >= 1 else 1


class Coverage(StrEnum):
    """How it stands with a pod and its sidecar; programs may match these words."""

    INJECTED = "injected"
    HELD = "held"
    """Its sidecar's container cannot be started, so that no other container is, either."""
    HOST_NETWORK = "host-network"
    WINDOWS = "windows"
    STATIC = "static"
    OPTED_OUT = "opted-out"
    NAMESPACE_NOT_ENABLED = "namespace-not-enabled"
    NAMESPACE_RESTRICTED = "namespace-restricted"
    BEFORE_OPT_IN = "before-opt-in"
    MISSED = "missed"
    """It should have one, as far as the pod and its namespace show."""


LEFT_OUT: Final = frozenset(
    {Coverage.HOST_NETWORK, Coverage.WINDOWS, Coverage.STATIC, Coverage.OPTED_OUT}
)
"""Somebody wants these so, or nobody can change it: no restart brings them a sidecar."""

SENTENCES: Final[Mapping[Coverage, str]] = MappingProxyType(
    {
        Coverage.HOST_NETWORK: "on the node's own network (hostNetwork), which is never captured",
        Coverage.WINDOWS: "on Windows, which is not supported",
        Coverage.STATIC: "static pods of a node, which nobody may change",
        Coverage.OPTED_OUT: f"opted out by the pod's label {keys.INJECT}={keys.INJECT_DISABLED}",
        Coverage.NAMESPACE_NOT_ENABLED: (
            f"the namespace has not opted in (label it {keys.INJECT}={keys.INJECT_ENABLED}, "
            "then restart them)"
        ),
        Coverage.NAMESPACE_RESTRICTED: (
            "the namespace enforces the Pod Security level restricted, "
            "which allows no packet capture"
        ),
        Coverage.BEFORE_OPT_IN: "created before the namespace opted in (restart them)",
        Coverage.MISSED: "created while the webhook was away (restart them)",
    }
)
"""Why a pod has no sidecar, in words that say what to do."""

REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "injection-off": (
            "created while injection was switched off (kubectl nightcap doctor says why; "
            "restart them when it is on)"
        ),
        "limit-range": "a LimitRange of the namespace would have refused them for the sidecar",
        "quota": "a ResourceQuota of the namespace had no room for the sidecar",
        "name-taken": "they use a container or volume name that is Nightcap's (rename it)",
        "unknown-opt-out": (
            f"their label {keys.INJECT} is neither {keys.INJECT_DISABLED} nor {keys.INJECT_ENABLED}"
        ),
        "windows": SENTENCES[Coverage.WINDOWS],
    }
)
"""Of pods that the webhook was asked about and that should have a sidecar: its reason, as the pod's
annotation `not-injected` has it → why that is so."""
_MAX_DETAIL: Final = 200


def why_without_sidecar(pod: Pod, namespace: Namespace | None) -> str:
    """Why a pod has no sidecar, in words that say what to do."""
    coverage = _without_sidecar(pod, namespace)
    reason, detail = _refusal(pod)
    if coverage is not Coverage.MISSED or reason not in REFUSALS:
        return SENTENCES[coverage]
    # Which object it was, and no figures: pods that fail for one reason are named together.
    what = detail.partition(": ")[0][:_MAX_DETAIL]
    return f"{REFUSALS[reason]} ({what})" if what else REFUSALS[reason]


def _refusal(pod: Pod) -> tuple[str, str]:
    """What the webhook wrote when it left the pod: (reason, detail)."""
    reason, _, detail = (pod.metadata.annotation(keys.NOT_INJECTED) or "").partition(": ")
    return reason, detail


def coverage_of(pod: Pod, namespace: Namespace | None) -> Coverage:
    """How it stands with a pod and its sidecar."""
    if not has_sidecar(pod):
        return _without_sidecar(pod, namespace)
    return Coverage.HELD if holding_reason(pod) else Coverage.INJECTED


def _without_sidecar(pod: Pod, namespace: Namespace | None) -> Coverage:
    labels = namespace.metadata.labels or {} if namespace else {}
    rows = (
        (pod.spec.host_network, Coverage.HOST_NETWORK),
        (pod.spec.os is not None and pod.spec.os.name == "windows", Coverage.WINDOWS),
        (_refusal(pod)[0] == "windows", Coverage.WINDOWS),
        (pod.metadata.annotation(MIRROR) is not None, Coverage.STATIC),
        (pod.metadata.label(keys.INJECT) == keys.INJECT_DISABLED, Coverage.OPTED_OUT),
        (labels.get(keys.INJECT) != keys.INJECT_ENABLED, Coverage.NAMESPACE_NOT_ENABLED),
        (labels.get(_ENFORCE) == "restricted", Coverage.NAMESPACE_RESTRICTED),
        (_is_older_than_opt_in(pod, namespace), Coverage.BEFORE_OPT_IN),
    )
    return next((coverage for holds, coverage in rows if holds), Coverage.MISSED)


def opted_in_at(namespace: Namespace) -> datetime | None:
    """Since when a namespace is opted in, as far as the API server remembers.

    It notes who wrote which fields last, and when: the writer of our label. Where nothing is
    noted the namespace has been opted in since it was made.
    """
    times = [
        entry.time
        for entry in namespace.metadata.managed_fields
        if entry.time is not None and f"f:{keys.INJECT}" in entry.labels
    ]
    return min(times, default=namespace.metadata.creation_timestamp)


def _is_older_than_opt_in(pod: Pod, namespace: Namespace | None) -> bool:
    created = pod.metadata.creation_timestamp
    since = opted_in_at(namespace) if namespace is not None else None
    # Both are whole seconds: within the same one nobody knows which was first.
    return created is not None and since is not None and created <= since


def holding_reason(pod: Pod) -> str:
    """Why the kubelet cannot start the pod's sidecar, in its own word; empty if that is not so.

    A native sidecar holds back every container after it until it has started.
    """
    if pod.status.phase != "Pending":
        return ""
    for status in pod.status.init_containers:
        if status.name == keys.SIDECAR_CONTAINER and not status.started:
            waiting = (status.state or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            return reason if reason in _HOLDING else ""
    return ""
