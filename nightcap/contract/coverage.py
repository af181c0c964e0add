"""Whether a pod has a sidecar that can be ordered, and if not, why."""

import json

from nightcap.contract import keys
from nightcap.contract.objects import Namespace, Pod
from nightcap.contract.orders import ORDERS_VERSION

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a static pod's copy in the API."""
_ENFORCE = "pod-security.kubernetes.io/enforce"


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


def why_without_sidecar(pod: Pod, namespace: Namespace | None) -> str:
    """Why a pod has no sidecar, in words that say what to do."""
    labels = namespace.metadata.labels or {} if namespace else {}
    if pod.spec.host_network:
        return "on the node's own network (hostNetwork), which is never captured"
    if pod.spec.os is not None and pod.spec.os.name == "windows":
        return "on Windows, which is not supported"
    if pod.metadata.annotation(MIRROR) is not None:
        return "static pods of a node, which nobody may change"
    if pod.metadata.label(keys.INJECT) == keys.INJECT_DISABLED:
        return f"opted out by the pod's label {keys.INJECT}={keys.INJECT_DISABLED}"
    if labels.get(keys.INJECT) != keys.INJECT_ENABLED:
        return (
            f"the namespace has not opted in (label it {keys.INJECT}={keys.INJECT_ENABLED}, "
            "then restart them)"
        )
    if labels.get(_ENFORCE) == "restricted":
        return (
            "the namespace enforces the Pod Security level restricted, "
            "which allows no packet capture"
        )
    return (
        "created before the namespace opted in, or while the webhook was away or refused "
        "(restart them)"
    )
