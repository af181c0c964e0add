"""What the sidecar asks of its node: as little as keeps the pod's quality of service.

Source for the classes: k8s.io/kubernetes pkg/apis/core/v1/helper/qos (ComputePodQOS).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final

from nightcap.contract.objects import Quantity
from webhook.facts import NamespaceFacts, Pod, Resources

KEPT_FREE_BYTES: Final = 32 * 2**20
"""Between what segments may take and the volume's sizeLimit, above which the pod is evicted."""
LEAST_SPOOL_BYTES: Final = KEPT_FREE_BYTES + 16 * 2**20

EPHEMERAL: Final = "ephemeral-storage"
_NOTHING: Final = Fraction(0)
_COMPUTE: Final = ("cpu", "memory")
_QUANTITY = re.compile(
    r"([+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30}))(?:[eE]([+-]?\d{1,2})|(.*))", re.ASCII
)
_SUFFIXES: Final[Mapping[str, Fraction]] = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9),
    "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30),
    "Ti": Fraction(2**40), "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip


class QualityOfService(StrEnum):
    """A pod's quality of service class."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What an installation gives its sidecars.

    Attributes:
        guaranteed_cpu: Request and limit in Guaranteed pods, which must have both. Below
            about 50m the start of the pod takes a second longer.
        guaranteed_memory: The same for memory.
        memory_limit: In Burstable pods; empty for none. BestEffort pods never get one, it
            would make them Burstable.
        ephemeral_limit: In pods of which a container has a limit of ephemeral storage: the
            spool's size. Without it our spool would count against their limit alone.
    """

    guaranteed_cpu: str
    guaranteed_memory: str
    memory_limit: str
    ephemeral_limit: str


@dataclass(frozen=True, slots=True)
class SidecarResources:
    """`resources` of our container, as (resource, quantity) pairs."""

    requests: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, str], ...] = ()


def sidecar_resources(
    pod: Pod, sizes: Sizes, namespace: NamespaceFacts, *, unlimited: bool = False
) -> SidecarResources:
    """The smallest resources that leave the pod what it was.

    | pod | requests | limits |
    | --- | --- | --- |
    | with `spec.resources` | "0" | none: it lives inside the pod's own |
    | Guaranteed | the floor | the floor |
    | Burstable | "0" | memory, if the installation wants one |
    | BestEffort | "0" | none |
    | any, in a namespace whose quota counts limits | | "0" where there would be none |
    | any that has, or is given, a limit of ephemeral storage | "0" of that | the spool's |

    Requests of cpu and memory are always there: an autoscaler that computes a pod's use
    of its requests gives up over one container without. A limit of "0" is none to the
    node, but a LimitRange does not put its default in the place.

    Args:
        pod: The pod.
        sizes: The installation's; the spool's already as small as the namespace wants it.
        namespace: Its quotas and defaults.
        unlimited: Say "0" for every limit of cpu and memory that would else be left out.
    """
    requests = dict.fromkeys(_COMPUTE, "0")
    limits: dict[str, str] = {}
    if pod.spec.resources is None:
        match quality_of_service(pod):
            case QualityOfService.GUARANTEED:
                requests = {"cpu": sizes.guaranteed_cpu, "memory": sizes.guaranteed_memory}
                limits = dict(requests)
            case QualityOfService.BURSTABLE if sizes.memory_limit:
                limits = {"memory": sizes.memory_limit}
            case _:
                pass
    limits_counted = namespace.limits_counted
    for resource in _COMPUTE:
        if unlimited or resource in limits_counted:
            limits.setdefault(resource, "0")
    if _limits_ephemeral_storage(pod) or EPHEMERAL in namespace.default_limits():
        requests[EPHEMERAL] = "0"
        limits[EPHEMERAL] = sizes.ephemeral_limit
    return SidecarResources(tuple(requests.items()), tuple(limits.items()))


def quality_of_service(pod: Pod) -> QualityOfService:
    """The class that Kubernetes gives a pod."""
    spec = pod.spec
    if spec.resources is not None:
        return _class_of([spec.resources])
    containers = [*(spec.containers or ()), *(spec.init_containers or ())]
    return _class_of([container.resources or Resources() for container in containers])


def _class_of(parts: Iterable[Resources]) -> QualityOfService:
    asks = False
    is_guaranteed = True
    for part in parts:
        limits = part.limits or {}
        # The API server defaults an absent request to the limit before it asks us;
        # manifests that did not pass it have not had that yet.
        requests = {**limits, **(part.requests or {})}
        for name in _COMPUTE:
            request, limit = _amount(requests.get(name)), _amount(limits.get(name))
            asks = asks or request > 0 or limit > 0
            # Kubernetes compares the sums; no request is above its limit, so these are equal
            # where each one is.
            is_guaranteed = is_guaranteed and limit > 0 and request == limit
    if not asks:
        return QualityOfService.BEST_EFFORT
    return QualityOfService.GUARANTEED if is_guaranteed else QualityOfService.BURSTABLE


def _amount(value: Quantity | None) -> Fraction:
    return (parse_quantity(value) if value is not None else None) or _NOTHING


def _limits_ephemeral_storage(pod: Pod) -> bool:
    return any(
        container.resources is not None and EPHEMERAL in (container.resources.limits or {})
        for container in pod.spec.all_containers
    )


# Pods of a cluster ask for a few dozen different amounts.
@lru_cache(maxsize=4096)
def parse_quantity(value: Quantity) -> Fraction | None:
    """Read a Kubernetes quantity such as `250m`, `1Gi`, `2e3` or 0.5.

    Returns:
        None when it is none; the API server lets no such pod come this far.
    """
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    if exponent is not None:
        return Fraction(number) * Fraction(10) ** int(exponent)
    scale = _SUFFIXES.get(suffix)
    return None if scale is None else Fraction(number) * scale
