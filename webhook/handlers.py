"""What each path answers: requests in, outcomes out, from what is known without asking anybody.

Decisions are `eligibility`'s, `injection`'s and `validation`'s; here they are put together
with what the caches know and with the clock.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import msgspec

from nightcap.contract import keys
from nightcap.contract.assignment import ResolvedCapture, orders_of_new_pod
from nightcap.contract.ceilings import Ceiling
from nightcap.pcap.bounded import Undecided
from webhook import injection
from webhook.constraints import Refused, fit
from webhook.eligibility import SENTENCES, Inject, Keep, Skip, SkipReason, decide
from webhook.facts import NamespaceFacts, NotAPod, Pod, read_pod
from webhook.injection import Template
from webhook.resources import Sizes
from webhook.review import Answer, Request
from webhook.shape import Level
from webhook.validation import (
    CheckFilter,
    annotation_faults,
    capture_faults,
    ceiling_faults,
    new_pod_faults,
)

_UNTOUCHED: Final = frozenset(
    {SkipReason.NOT_A_POD_CREATION, SkipReason.UNREADABLE, SkipReason.MIRROR_POD}
)
"""Reasons for which not even a forged annotation is taken away."""

SHARED_PROCESSES: Final = (
    "nightcap: the pod's containers share one process namespace, so one that runs as root "
    "can reach the capture sidecar's files"
)


class Cluster(Protocol):
    """What handlers ask of the cache; see `cache.ClusterCache`."""

    def namespace(self, name: str, *, wait: bool = True) -> NamespaceFacts: ...

    def captures(self, namespace: str) -> tuple[ResolvedCapture, ...]: ...

    def ceiling(self, namespace: str) -> Ceiling | None: ...

    @property
    def collectors(self) -> tuple[tuple[str, int], ...]: ...

    @property
    def injecting(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer, and what the log and the metrics say of it.

    Attributes:
        decision: `injected`, `kept`, `skipped`, `allowed`, `denied` or `failed`.
        reason: Why, from a closed list; empty for the plain case.
        facts: More for the log line.
    """

    answer: Answer
    decision: str
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


Handler = Callable[[Request], Outcome]


class PodHandler:
    """Injects pods that are being created."""

    def __init__(
        self,
        cluster: Cluster,
        template: Callable[[], Template],
        sizes: Sizes,
        *,
        own_namespace: str,
        clock: Callable[[], float],
    ) -> None:
        """Take what does not change from pod to pod.

        Args:
            cluster: What is known of namespaces, captures and collectors.
            template: The one for a pod that is injected now; changes with the root of trust.
            sizes: What sidecars ask of their nodes.
            own_namespace: Where Nightcap runs.
            clock: Seconds since the epoch.
        """
        self._cluster = cluster
        self._template = template
        self._sizes = sizes
        self._own_namespace = own_namespace
        self._clock = clock

    def at(self, level: Level, *, wait: bool = True) -> Handler:
        """The handler for namespaces of one Pod Security level.

        Args:
            level: That one.
            wait: Without, it raises `NotAtOnce` where it would have to.
        """
        return lambda request: self._handle(request, level, wait)

    def _handle(self, request: Request, level: Level, wait: bool) -> Outcome:
        if not request.creates_pod:
            return _skipped(Skip(SkipReason.NOT_A_POD_CREATION))
        try:
            pod = read_pod(request.object)
        except NotAPod as error:
            return _skipped(Skip(SkipReason.UNREADABLE, str(error)))
        outcome = self._admit(pod, self._cluster.namespace(request.namespace, wait=wait), level)
        meta = pod.meta
        outcome.facts.setdefault("object", meta.name or f"{meta.generate_name}*")
        faults = new_pod_faults(meta.annotations or {})
        if not faults:
            return outcome
        told = (*outcome.answer.warnings, *(f"nightcap: {fault}" for fault in faults))
        return replace(outcome, answer=replace(outcome.answer, warnings=told))

    def _admit(self, pod: Pod, namespace: NamespaceFacts, level: Level) -> Outcome:
        decision = decide(pod, namespace, level, own_namespace=self._own_namespace)
        # A pod that has it already was injected a moment ago, by this very creation.
        if isinstance(decision, Inject) and not self._cluster.injecting:
            decision = Skip(SkipReason.INJECTION_OFF)
        if not isinstance(decision, Skip):
            template = self._template()
            if injection.has_room(pod, template):
                return self._give(decision, pod, namespace, template)
            decision = Skip(SkipReason.ANNOTATIONS_FULL)
        return _left(decision, pod)

    def _give(
        self,
        decision: Inject | Keep,
        pod: Pod,
        namespace: NamespaceFacts,
        template: Template,
    ) -> Outcome:
        value, captures = self._orders(pod, namespace, template)
        if isinstance(decision, Keep):
            patch = injection.refresh(pod, decision.index, template, value)
            word, reason = "kept", str(decision.reason)
        else:
            fitting = fit(pod, self._sizes, namespace)
            if isinstance(fitting, Refused):
                return _left(Skip(fitting.reason, fitting.detail), pod)
            template = injection.with_spool(template, fitting.spool_bytes)
            patch = injection.inject(pod, template, decision.profile, fitting.resources, value)
            word, reason = "injected", ""
        warnings = (SHARED_PROCESSES,) if pod.spec.share_process_namespace else ()
        audit = {"decision": word, "release": template.release}
        if reason:
            audit["reason"] = reason
        if captures:
            audit["captures"] = ",".join(captures)
        answer = Answer(patch=_encode(patch), warnings=warnings, audit=audit)
        return Outcome(answer, word, reason, {"captures": captures})

    def _orders(
        self, pod: Pod, namespace: NamespaceFacts, template: Template
    ) -> tuple[str, list[str]]:
        """The pod's orders annotation, empty for none, and the captures in it."""
        captures = self._cluster.captures(namespace.name)
        if not captures:
            return "", []
        # The pod's own `metadata.namespace` is empty when the path of the request names it.
        meta = msgspec.structs.replace(pod.meta, namespace=namespace.name)
        orders = orders_of_new_pod(meta, captures, self._cluster.collectors, self._clock())
        value = injection.orders_value(pod, template, orders)
        return value, [entry.id for entry in orders.captures] if value else []


class CaptureHandler:
    """Refuses captures that could only fail later, and those beyond their namespace's ceiling."""

    def __init__(
        self, check_filter: CheckFilter, cluster: Cluster, clock: Callable[[], float]
    ) -> None:
        self._check_filter = check_filter
        self._cluster = cluster
        self._clock = clock

    def __call__(self, request: Request) -> Outcome:
        if not any(request.concerns(group, keys.PLURAL) for group in keys.API_VERSIONS):
            return Outcome(Answer(), "allowed", "not-a-capture")
        try:
            faults = capture_faults(request, self._check_filter)
        except NotCompiled as error:
            return Outcome(Answer(warnings=(f"nightcap: {error}",)), "allowed", error.reason)
        ceiling = self._cluster.ceiling(request.namespace)
        if ceiling is not None:
            running = self._cluster.captures(request.namespace)
            faults = (*faults, *ceiling_faults(request, ceiling, running, self._clock()))
        if not faults:
            return Outcome(Answer(), "allowed")
        refusal = f"capture {request.name or '(unnamed)'} is refused: {'; '.join(faults)}"
        audit = {"decision": "denied"}
        return Outcome(Answer(refusal=refusal, audit=audit), "denied", "faults")


class AnnotationHandler:
    """Warns whoever types an annotation that means nothing; never refuses."""

    def __init__(self, check_filter: CheckFilter) -> None:
        self._check_filter = check_filter

    def __call__(self, request: Request) -> Outcome:
        try:
            faults = annotation_faults(request, self._check_filter)
        except NotCompiled as error:
            return Outcome(Answer(), "allowed", error.reason)
        warnings = tuple(f"nightcap: {fault}" for fault in faults)
        return Outcome(Answer(warnings=warnings), "allowed", "faults" if faults else "")


class NotCompiled(RuntimeError):
    """A filter was not looked at, by no fault of its own; it is let through.

    Attributes:
        reason: `busy` when too many others were being compiled, `slow` when it took too long.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the filter {what}; whether it compiles, the capture's status will tell")
        self.reason = reason


class FilterCheck:
    """Compiles few filters at a time, so that nobody's filters keep pods waiting.

    A filter that slips through is refused by the sidecar, and the capture's status says so.
    """

    def __init__(
        self, check_filter: CheckFilter, *, at_once: int = 2, patience_seconds: float = 1.0
    ) -> None:
        self._check_filter = check_filter
        self._places = threading.BoundedSemaphore(at_once)
        self._patience_seconds = patience_seconds

    def __call__(self, expression: str) -> str | None:
        if not self._places.acquire(timeout=self._patience_seconds):
            raise NotCompiled("was not compiled now", "busy")
        try:
            return self._check_filter(expression)
        except Undecided as error:
            raise NotCompiled(str(error), "slow") from error
        finally:
            self._places.release()


def _left(decision: Skip, pod: Pod) -> Outcome:
    """A pod stays without sidecar, and carries no annotation that says otherwise."""
    untouched = decision.reason in _UNTOUCHED
    return _skipped(decision, () if untouched else injection.strip(pod, decision.said))


def _skipped(decision: Skip, patch: injection.Patch = ()) -> Outcome:
    sentence = SENTENCES.get(decision.reason)
    detail = f" ({decision.detail})" if decision.detail else ""
    warnings = () if sentence is None else (f"nightcap: not injected: {sentence}{detail}",)
    audit = {"decision": "skipped", "reason": str(decision.reason)}
    facts = {"detail": decision.detail} if decision.detail else {}
    answer = Answer(patch=_encode(patch), warnings=warnings, audit=audit)
    return Outcome(answer, "skipped", str(decision.reason), facts)


def _encode(patch: injection.Patch) -> bytes:
    return injection.encode_patch(patch) if patch else b""


def failed(error: Exception) -> Outcome:
    """What an error of ours is answered: the write goes on, and somebody is told."""
    warning = "nightcap: an error of the webhook's own; nothing was changed or checked"
    answer = Answer(warnings=(warning,), audit={"decision": "failed"})
    return Outcome(answer, "failed", type(error).__name__)
