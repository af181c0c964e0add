"""When injection does more harm than good: pods that wait for our container alone. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.wording import by_reason
from nightcap.contract import keys
from nightcap.contract.coverage import (
    Coverage,
    coverage_of,
    has_sidecar,
    holding_reason,
    why_without_sidecar,
)
from nightcap.contract.objects import Namespace, Pod
from nightcap.listing import first_of

MOST_HELD_PODS: Final = 3
HELD_SECONDS: Final = 60.0
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class HeldPod:
    """A pod whose containers wait because its sidecar cannot be started.

    Attributes:
        reason: In the kubelet's word, such as `ImagePullBackOff`.
        since: When that was first seen, seconds since the epoch.
    """

    namespace: str
    name: str
    uid: str
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How much waiting is borne: injection goes off with one pod more.

    Attributes:
        most_pods: So many pods may wait.
        seconds: A pod counts when it has waited for so long.
    """

    most_pods: int = MOST_HELD_PODS
    seconds: float = HELD_SECONDS


@dataclass(frozen=True, slots=True)
class Missed:
    """Pods of one namespace that should have a sidecar and do not."""

    namespace: Namespace
    pods: tuple[Pod, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(pod.metadata.name for pod in self.pods)


def held_pods(pods: Iterable[Pod], known: Mapping[str, float], now: float) -> tuple[HeldPod, ...]:
    """The pods that are held now.

    Args:
        pods: Those of the cluster.
        known: Uid → since when, of those that were held at the last look.
        now: Seconds since the epoch.
    """
    held = []
    for pod in pods:
        if pod.status.phase != "Pending" or pod.metadata.deletion_timestamp is not None:
            continue
        reason = holding_reason(pod) if has_sidecar(pod) else ""
        if reason:
            meta = pod.metadata
            since = min(known.get(meta.uid, now), now)
            held.append(HeldPod(meta.namespace, meta.name, meta.uid, reason, since))
    return tuple(held)


def why_to_switch_off(held: Iterable[HeldPod], patience: Patience, now: float) -> str:
    """Why injection has to be switched off now, a sentence; empty if it need not be."""
    late = [pod for pod in held if now - pod.since >= patience.seconds]
    if len(late) <= patience.most_pods:
        return ""
    late.sort(key=lambda pod: (pod.since, pod.namespace, pod.name))
    names = first_of([f"{pod.namespace}/{pod.name}" for pod in late], _NAMED)
    ((reason, _),) = Counter(pod.reason for pod in late).most_common(1)
    return (
        f"{len(late)} pods have waited {patience.seconds:.0f} s and longer for the container "
        f"nightcap, which does not start ({reason}): {names}"
    )


def coverages(
    namespaces: Iterable[Namespace], pods: Iterable[Pod]
) -> tuple[Counter[Coverage], dict[str, Missed]]:
    """How it stands with the living pods of the namespaces that are opted in.

    Returns:
        (pods by coverage, name of a namespace → those of its pods that should have a sidecar
        and do not).
    """
    enabled = {
        namespace.metadata.name: namespace for namespace in namespaces if is_enabled(namespace)
    }
    counts: Counter[Coverage] = Counter()
    missed: dict[str, list[Pod]] = {}
    for pod in pods:
        namespace = enabled.get(pod.metadata.namespace)
        if namespace is None or pod.is_over or pod.metadata.deletion_timestamp is not None:
            continue
        coverage = coverage_of(pod, namespace)
        counts[coverage] += 1
        if coverage is Coverage.MISSED:
            missed.setdefault(pod.metadata.namespace, []).append(pod)
    return counts, {name: Missed(enabled[name], tuple(them)) for name, them in missed.items()}


def is_enabled(namespace: Namespace) -> bool:
    """Whether pods of a namespace are to get their sidecar."""
    label = namespace.metadata.label(keys.INJECT)
    return label == keys.INJECT_ENABLED and namespace.metadata.deletion_timestamp is None


def missed_message(missed: Missed) -> str:
    """What an Event says of pods that should have a sidecar and do not: which, why, what to do."""
    namespace, count = missed.namespace.metadata.name, len(missed.pods)
    # What to do comes first: a long list of names and reasons is cut at its end.
    return (
        f"{count} {'pod has' if count == 1 else 'pods have'} no capture sidecar, so no capture "
        f"records {'it' if count == 1 else 'them'}. kubectl nightcap enable {namespace} names the "
        "command that restarts what needs it. "
        f"{reasons_without_sidecar(missed.pods, missed.namespace)}"
    )


def reasons_without_sidecar(pods: Iterable[Pod], namespace: Namespace | None) -> str:
    """Which pods of a namespace have no sidecar for which reason, each reason once."""
    return by_reason((why_without_sidecar(pod, namespace), pod.metadata.name) for pod in pods)
