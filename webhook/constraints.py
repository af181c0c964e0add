"""Whether a namespace's LimitRanges and ResourceQuotas have room for the sidecar. Pure.

Both judge a pod after the webhook has changed it, and refuse it for our container. The
rules here are those of k8s.io/kubernetes plugin/pkg/admission/limitranger and
pkg/quota/v1/evaluator/core (1.35).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from nightcap.contract.objects import (
    LimitRange,
    LimitRangeItem,
    Quantity,
    ResourceQuota,
    ScopeExpression,
)
from webhook.eligibility import SkipReason
from webhook.facts import Container, NamespaceFacts, Pod, Resources
from webhook.resources import (
    EPHEMERAL,
    LEAST_SPOOL_BYTES,
    QualityOfService,
    SidecarResources,
    Sizes,
    parse_quantity,
    quality_of_service,
    sidecar_resources,
)

Amounts = dict[str, Fraction]

_COUNTED: Final = ("cpu", "memory", EPHEMERAL)


@dataclass(frozen=True, slots=True)
class Fitting:
    """What the sidecar gets in this namespace.

    Attributes:
        spool_bytes: Size of its spool volume; None for the installation's own.
    """

    resources: SidecarResources
    spool_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The pod would be refused because of the sidecar."""

    reason: SkipReason
    detail: str


def fit(pod: Pod, sizes: Sizes, namespace: NamespaceFacts) -> Fitting | Refused:
    """Find resources with which the namespace takes the pod and its sidecar.

    First those that leave most to the namespace's own defaults; where these would be
    refused (a default limit of ours counts towards a quota, and towards the bounds of
    the whole pod), limits of "0".

    A quota's use is as of milliseconds ago. A pod that is refused in that gap was created
    by a controller that tries again.
    """
    if not namespace.limit_ranges and not namespace.quotas:
        return Fitting(sidecar_resources(pod, sizes, namespace))
    spool = _spool_bytes(sizes, namespace)
    if spool is not None:
        if spool < LEAST_SPOOL_BYTES:
            detail = (
                f"a default of {spool} bytes of {EPHEMERAL}: the spool needs "
                f"{LEAST_SPOOL_BYTES >> 20}Mi"
            )
            return Refused(SkipReason.LIMIT_RANGE, detail)
        sizes = replace(sizes, ephemeral_limit=str(spool))
    refused: Refused | None = None
    for unlimited in (False, True):
        resources = sidecar_resources(pod, sizes, namespace, unlimited=unlimited)
        refused = next(_objections(pod, resources, namespace), None)
        if refused is None:
            return Fitting(resources, spool)
    assert refused is not None  # noqa: S101 - the loop ran
    return refused


def _spool_bytes(sizes: Sizes, namespace: NamespaceFacts) -> int | None:
    """The default limit of ephemeral storage, where it is below the installation's spool."""
    default = parse_quantity(namespace.default_limits().get(EPHEMERAL, ""))
    own = parse_quantity(sizes.ephemeral_limit)
    return int(default) if default is not None and own is not None and default < own else None


def _objections(
    pod: Pod, resources: SidecarResources, namespace: NamespaceFacts
) -> Iterator[Refused]:
    ours = _with_defaults(resources, namespace)
    before, after = _Totals.of(pod), _Totals.of(pod, ours)
    for limit_range in namespace.limit_ranges:
        for said in _limit_range_objections(limit_range, ours, before, after):
            name = limit_range.metadata.name
            yield Refused(SkipReason.LIMIT_RANGE, f"LimitRange {name}: {said}")
    for quota in namespace.quotas:
        if all(_matches(scope, pod) for scope in quota.scopes):
            for said in _quota_objections(quota, before, after):
                yield Refused(SkipReason.QUOTA, f"ResourceQuota {quota.metadata.name}: {said}")


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a container, or a pod in all, requests and is limited to."""

    requests: Amounts
    limits: Amounts

    @classmethod
    def of(cls, pod: Pod, sidecar: "_Totals | None" = None) -> "_Totals":
        """The pod's, with a sidecar first in line."""
        budget = pod.spec.resources or Resources()
        overhead = _amounts(pod.spec.overhead)
        requests = _sum(pod, "requests", sidecar.requests if sidecar else {})
        limits = _sum(pod, "limits", sidecar.limits if sidecar else {})
        # What the pod as a whole is given stands in the place of the sums.
        requests |= _amounts(budget.requests)
        limits |= _amounts(budget.limits)
        return cls(_plus(requests, overhead), limits)


def _with_defaults(resources: SidecarResources, namespace: NamespaceFacts) -> _Totals:
    """Our container's after LimitRanger, which runs once more after us."""
    default_requests: dict[str, Quantity] = {}
    for limit_range in namespace.limit_ranges:
        for item in limit_range.items:
            if item.type == "Container":
                default_requests = {**(item.default_request or {}), **default_requests}
    return _Totals(
        _amounts({**default_requests, **dict(resources.requests)}),
        _amounts({**namespace.default_limits(), **dict(resources.limits)}),
    )


def _sum(pod: Pod, field: str, sidecar: Amounts) -> Amounts:
    def of(container: Container) -> Amounts:
        return _amounts(getattr(container.resources or Resources(), field))

    total = dict(sidecar)
    for container in pod.spec.containers or ():
        total = _plus(total, of(container))
    # Native sidecars run on beside the containers; the others run one by one beside the
    # sidecars that have started before them.
    running, most = dict(sidecar), dict(sidecar)
    for container in pod.spec.init_containers or ():
        if container.restart_policy == "Always":
            running = _plus(running, of(container))
            total = _plus(total, of(container))
            most = _most(most, running)
        else:
            most = _most(most, _plus(running, of(container)))
    return _most(total, most)


def _limit_range_objections(
    limit_range: LimitRange, ours: _Totals, before: _Totals, after: _Totals
) -> Iterator[str]:
    for item in limit_range.items:
        if item.type == "Container":
            yield from _bounds_broken(item, ours)
        elif item.type == "Pod":
            # A pod that is refused without us is not refused because of us.
            already = set(_bounds_broken(item, before))
            if not already:
                yield from _bounds_broken(item, after)


def _bounds_broken(item: LimitRangeItem, of: _Totals) -> Iterator[str]:
    per = item.type.lower()
    for name, least in _amounts(item.min).items():
        request, limit = of.requests.get(name), of.limits.get(name)
        if request is None or request < least or (limit is not None and limit < least):
            yield f"at least {(item.min or {})[name]} of {name} for each {per}"
    for name, most in _amounts(item.max).items():
        request, limit = of.requests.get(name), of.limits.get(name)
        if limit is None or limit > most or (request is not None and request > most):
            yield f"at most {(item.max or {})[name]} of {name} for each {per}"
    for name, ratio in _amounts(item.max_limit_request_ratio).items():
        request, limit = of.requests.get(name), of.limits.get(name)
        if not request or not limit or limit / request > ratio:
            said = (item.max_limit_request_ratio or {})[name]
            yield f"a limit of {name} of at most {said} times the request for each {per}"


def _quota_objections(quota: ResourceQuota, before: _Totals, after: _Totals) -> Iterator[str]:
    used = _amounts(quota.status.used)
    without, with_us = _counted(before), _counted(after)
    for name, hard in _amounts(quota.hard).items():
        amount = with_us.get(name, Fraction(0))
        if amount > without.get(name, Fraction(0)) and used.get(name, Fraction(0)) + amount > hard:
            spent = (quota.status.used or {}).get(name, "0")
            yield f"{name} is {quota.hard[name]}, of which {spent} is used"


def _counted(of: _Totals) -> Amounts:
    """By the names under which quotas count them."""
    counted: Amounts = {}
    for name in _COUNTED:
        if name in of.requests:
            counted[name] = counted[f"requests.{name}"] = of.requests[name]
        if name in of.limits:
            counted[f"limits.{name}"] = of.limits[name]
    return counted


def _matches(scope: ScopeExpression, pod: Pod) -> bool:
    """Whether a quota's scope takes a pod in; one that we do not know does."""
    match scope.scope_name:
        case "Terminating":
            return pod.spec.active_deadline_seconds is not None
        case "NotTerminating":
            return pod.spec.active_deadline_seconds is None
        case "BestEffort":
            return quality_of_service(pod) is QualityOfService.BEST_EFFORT
        case "NotBestEffort":
            return quality_of_service(pod) is not QualityOfService.BEST_EFFORT
        case "PriorityClass":
            return _selects(scope, pod.spec.priority_class_name or "")
        case _:
            return True


def _selects(scope: ScopeExpression, value: str) -> bool:
    match scope.operator:
        case "In":
            return value in (scope.values or ())
        case "NotIn":
            return value not in (scope.values or ())
        case "DoesNotExist":
            return not value
        case _:
            return bool(value)


def _amounts(resources: Mapping[str, Quantity] | None) -> Amounts:
    return {
        name: amount
        for name, value in (resources or {}).items()
        if (amount := parse_quantity(value)) is not None
    }


def _plus(one: Amounts, other: Amounts) -> Amounts:
    zero = Fraction(0)
    return {name: one.get(name, zero) + other.get(name, zero) for name in one | other}


def _most(one: Amounts, other: Amounts) -> Amounts:
    zero = Fraction(0)
    return {name: max(one.get(name, zero), other.get(name, zero)) for name in one | other}
