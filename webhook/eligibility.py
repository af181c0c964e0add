"""Whether a pod gets the sidecar: facts in, one of a closed list of reasons out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from nightcap.contract import keys
from webhook.facts import NamespaceFacts, Pod
from webhook.shape import PROFILES, Level, Profile, find_sidecar, mentions

SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""Never injected, whatever their labels say: what the webhook itself needs runs there."""

MIRROR: Final = "kubernetes.io/config.mirror"
_OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")
_WINDOWS: Final = "windows"


class SkipReason(StrEnum):
    """Why a pod is left as it is; programs may match these words."""

    NOT_A_POD_CREATION = "not-a-pod-creation"
    UNREADABLE = "unreadable"
    MIRROR_POD = "mirror-pod"
    OWN_NAMESPACE = "own-namespace"
    SYSTEM_NAMESPACE = "system-namespace"
    NAMESPACE_NOT_ENABLED = "namespace-not-enabled"
    NAMESPACE_RESTRICTED = "namespace-restricted"
    OPTED_OUT = "opted-out"
    UNKNOWN_OPT_OUT = "unknown-opt-out"
    HOST_NETWORK = "host-network"
    WINDOWS = "windows"
    ALREADY_INJECTED = "already-injected"
    NAME_TAKEN = "name-taken"
    ANNOTATIONS_FULL = "annotations-full"
    LIMIT_RANGE = "limit-range"
    QUOTA = "quota"
    INJECTION_OFF = "injection-off"


SENTENCES: Final[Mapping[SkipReason, str]] = MappingProxyType(
    {
        SkipReason.UNREADABLE: "what was sent cannot be read as a pod",
        SkipReason.MIRROR_POD: "it mirrors a static pod, which only its node can change",
        SkipReason.OWN_NAMESPACE: "Nightcap does not capture itself",
        SkipReason.SYSTEM_NAMESPACE: "namespaces of the cluster's own are left alone",
        SkipReason.NAMESPACE_NOT_ENABLED: (
            f"the namespace does not carry the label {keys.INJECT}={keys.INJECT_ENABLED}"
        ),
        SkipReason.NAMESPACE_RESTRICTED: (
            "the namespace enforces the Pod Security level restricted, which a capture cannot meet"
        ),
        SkipReason.UNKNOWN_OPT_OUT: (
            f"the pod's label {keys.INJECT} is neither {keys.INJECT_DISABLED} "
            f"nor {keys.INJECT_ENABLED}"
        ),
        SkipReason.HOST_NETWORK: "on the host's network it would capture the whole node",
        SkipReason.WINDOWS: "the sidecar is a Linux program",
        SkipReason.NAME_TAKEN: "the pod itself uses a name that is Nightcap's",
        SkipReason.ANNOTATIONS_FULL: "the pod's annotations leave no room for another",
        SkipReason.LIMIT_RANGE: "a LimitRange of the namespace would refuse the pod for it",
        SkipReason.QUOTA: "a ResourceQuota of the namespace has no room for it",
        SkipReason.INJECTION_OFF: (
            "injection is switched off in the whole cluster; kubectl nightcap doctor says why"
        ),
    }
)
"""For people, of each reason that is worth a warning."""


SAID_ON_THE_POD: Final = frozenset(
    {
        SkipReason.UNKNOWN_OPT_OUT,
        SkipReason.WINDOWS,
        SkipReason.NAME_TAKEN,
        SkipReason.LIMIT_RANGE,
        SkipReason.QUOTA,
        SkipReason.INJECTION_OFF,
    }
)
"""Reasons that are written on the pod, as nobody could see them afterwards: a controller that
creates pods shows their warnings to nobody (`nightcap.contract.coverage`)."""


@dataclass(frozen=True, slots=True)
class Inject:
    """The pod gets the sidecar."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class Keep:
    """The pod has the sidecar already: a second call, or a copy of an injected pod.

    Attributes:
        index: The sidecar's place in `initContainers`.
    """

    index: int

    @property
    def reason(self) -> SkipReason:
        return SkipReason.ALREADY_INJECTED


@dataclass(frozen=True, slots=True)
class Skip:
    """The pod stays without.

    Attributes:
        detail: What of the pod it was, where the reason alone does not say.
    """

    reason: SkipReason
    detail: str = ""

    @property
    def said(self) -> str:
        """What the pod's annotation says of it; empty where nothing need be said."""
        if self.reason not in SAID_ON_THE_POD:
            return ""
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


Decision = Inject | Keep | Skip


def decide(pod: Pod, namespace: NamespaceFacts, level: Level, *, own_namespace: str) -> Decision:
    """Decide on a pod that is being created.

    The first row that holds decides:

    | row | of whom | fact | decision |
    | --- | --- | --- | --- |
    | mirror-pod | pod | annotation `kubernetes.io/config.mirror` | skip, touch nothing |
    | own-namespace | namespace | is the one Nightcap runs in | skip |
    | system-namespace | namespace | kube-system, kube-public, kube-node-lease | skip |
    | namespace-not-enabled | namespace | known, and without the label | skip |
    | opted-out | pod | label `nightcap.dev/inject` = `disabled` | skip |
    | unknown-opt-out | pod | that label, neither `disabled` nor `enabled` | skip |
    | host-network | pod | `hostNetwork: true` | skip |
    | windows | pod | `os`, node selector, required affinity or `windowsOptions` | skip |
    | namespace-restricted | namespace | enforces `restricted` | skip |
    | already-injected | pod | our sidecar, whole and ours alone | keep |
    | name-taken | pod | uses a container or volume name of ours | skip |
    | | | none of these | inject with the level's profile |

    Args:
        pod: The pod.
        namespace: Its namespace: the request's, the pod's own is often empty.
        level: The namespace's Pod Security level, as the API server selected by it.
        own_namespace: Where Nightcap runs.
    """
    reason = _reason_to_skip(pod, namespace, level, own_namespace)
    if reason is not None:
        return Skip(reason)
    index = find_sidecar(pod)
    if index is not None:
        return Keep(index)
    taken = mentions(pod)
    if taken:
        return Skip(SkipReason.NAME_TAKEN, ", ".join(taken))
    return Inject(PROFILES[level])


def _reason_to_skip(
    pod: Pod, namespace: NamespaceFacts, level: Level, own_namespace: str
) -> SkipReason | None:
    opt_out = pod.meta.label(keys.INJECT)
    rows = (
        (pod.meta.annotation(MIRROR) is not None, SkipReason.MIRROR_POD),
        (namespace.name == own_namespace, SkipReason.OWN_NAMESPACE),
        (namespace.name in SYSTEM_NAMESPACES, SkipReason.SYSTEM_NAMESPACE),
        (namespace.enabled is False, SkipReason.NAMESPACE_NOT_ENABLED),
        (opt_out == keys.INJECT_DISABLED, SkipReason.OPTED_OUT),
        (opt_out not in (None, keys.INJECT_ENABLED), SkipReason.UNKNOWN_OPT_OUT),
        (pod.spec.host_network is True, SkipReason.HOST_NETWORK),
        (is_windows(pod), SkipReason.WINDOWS),
        (level not in PROFILES, SkipReason.NAMESPACE_RESTRICTED),
    )
    return next((reason for holds, reason in rows if holds), None)


def is_windows(pod: Pod) -> bool:
    """Whether a pod says, in any of the ways there are, that it is for Windows."""
    spec = pod.spec
    if spec.os is not None and spec.os.name == _WINDOWS:
        return True
    selector = spec.node_selector or {}
    if any(selector.get(label, "").lower() == _WINDOWS for label in _OS_LABELS):
        return True
    if _requires_windows_node(pod):
        return True
    contexts = [spec.security_context, *(c.security_context for c in spec.all_containers)]
    return any(_has_windows_options(context) for context in contexts)


def _has_windows_options(context: dict[str, Any] | None) -> bool:
    # Pod Security's own examples of Linux pods carry empty options.
    options = (context or {}).get("windowsOptions")
    return any(options.values()) if isinstance(options, dict) else bool(options)


def _requires_windows_node(pod: Pod) -> bool:
    affinity = pod.spec.affinity
    if (
        affinity is None
        or affinity.node_affinity is None
        or affinity.node_affinity.required is None
    ):
        return False
    terms = affinity.node_affinity.required.node_selector_terms or ()
    return bool(terms) and all(
        any(
            expression.key in _OS_LABELS
            and expression.operator == "In"
            and expression.values == (_WINDOWS,)
            for expression in term.match_expressions or ()
        )
        for term in terms
    )
