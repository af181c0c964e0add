"""The conditions of a capture, in the Kubernetes manner: reasons that a program can match and
messages that a person can act on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.injection import reasons_without_sidecar
from controller.tally import Tally
from controller.view import Judged, NamespaceView, PodReport
from controller.wording import by_reason, cut, names_of, timestamp
from nightcap.contract import keys
from nightcap.contract.ceilings import Ceiling
from nightcap.contract.coverage import LEFT_OUT, coverage_of
from nightcap.contract.objects import Pod
from nightcap.contract.reports import Reason, Report

_SKEW_AHEAD_SECONDS: Final = 1.0
# A report that waited in a retry looks like a clock that is behind.
_SKEW_BEHIND_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition before its times are filled in; `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str


def conditions_of(
    judged: Judged,
    tally: Tally,
    view: NamespaceView,
    faults: tuple[str, ...],
    now: float,
    carried: bool,
) -> list[dict[str, Any]]:
    """All conditions of a capture, with their times.

    Args:
        judged: The capture.
        tally: The pods that it selects.
        view: Its namespace.
        faults: What is wrong with the annotations that it stands for.
        now: Seconds since the epoch.
        carried: Whether some living pod's orders hold it.
    """
    reports = tuple(view.reports.get(judged.uid, {}).values())
    conditions = [_valid(judged)]
    if view.ceiling is not None:
        conditions.append(_within_ceiling(judged, view.ceiling))
    if judged.capture.source is not None:
        conditions.append(_annotations(faults))
    if view.injection_off:
        conditions.append(_injection_off(view.injection_off))
    living = {pod.metadata.uid for pod in tally.covered}
    refused = [each for each in reports if each.refused and each.pod_uid in living]
    if refused:
        conditions.append(_storing(refused))
    conditions += [
        _covered(tally, view),
        _reporting(tally, view, judged.is_running(now)),
        _recording(judged, tally, now),
        _clocks(reports),
        _complete(judged, reports, now, carried),
    ]
    return _with_times(conditions, judged, now)


def _valid(judged: Judged) -> Condition:
    if judged.faults:
        return Condition("Valid", "False", "BadSpec", cut("; ".join(judged.faults)))
    return Condition("Valid", "True", "Accepted", "the spec is understood")


def _within_ceiling(judged: Judged, ceiling: Ceiling) -> Condition:
    objects = ", ".join(ceiling.names)
    if judged.beyond:
        rule = judged.beyond[0].partition(":")[0]
        reason = f"{rule[:1].upper()}{rule[1:]}"
        return Condition("WithinCeiling", "False", reason, cut("; ".join(judged.beyond)))
    return Condition("WithinCeiling", "True", "WithinCeiling", f"measured by ceiling {objects}")


def _annotations(faults: tuple[str, ...]) -> Condition:
    if faults:
        return Condition("AnnotationsValid", "False", "BadAnnotation", cut("; ".join(faults)))
    return Condition("AnnotationsValid", "True", "Accepted", "the annotations are understood")


def _injection_off(why: str) -> Condition:
    return Condition(
        "Injecting",
        "False",
        "InjectionOff",
        cut(f"injection is switched off in the whole cluster, new pods get no sidecar: {why}"),
    )


def _covered(tally: Tally, view: NamespaceView) -> Condition:
    if not tally.matching:
        return Condition("PodsCovered", "Unknown", "NoMatchingPods", "no pod is selected")
    if not tally.bare:
        return Condition(
            "PodsCovered", "True", "AllInjected", "every pod that is selected has its sidecar"
        )
    reasons = reasons_without_sidecar(tally.bare, view.namespace)
    message = f"{len(tally.bare)} of {len(tally.matching)} pods have no sidecar; {reasons}"
    if all(coverage_of(pod, view.namespace) in LEFT_OUT for pod in tally.bare):
        return Condition("PodsCovered", "False", "PodsLeftOut", cut(message))
    return Condition("PodsCovered", "False", "PodsWithoutSidecar", cut(message))


def _reporting(tally: Tally, view: NamespaceView, running: bool) -> Condition:
    if not view.retrieval.known:
        return Condition(
            "Reporting",
            "Unknown",
            "NoCollector",
            "no collector is ready, so nothing is known of pods; the numbers are the last known",
        )
    if view.retrieval.unreachable:
        return Condition(
            "Reporting",
            "Unknown",
            "CollectorUnreachable",
            cut(
                f"collectors do not answer: {names_of(view.retrieval.unreachable)}; "
                "the numbers are the last known"
            ),
        )
    if tally.silent:
        names = [_with_trouble(pod) for pod in tally.silent]
        return Condition(
            "Reporting",
            "False",
            "PodsNotReporting",
            cut(
                f"{len(names)} of {len(tally.covered)} pods do not report: {names_of(names)}; "
                "they may capture all the same: look for a network policy or mesh between "
                "them and the collector (port 20443)"
            ),
        )
    if not running or not tally.covered:
        return Condition("Reporting", "Unknown", "NothingToReport", "no pod has to report now")
    return Condition("Reporting", "True", "PodsReport", "every pod that should report does")


def _storing(refused: Sequence[PodReport]) -> Condition:
    names = names_of([each.pod_name for each in refused])
    return Condition(
        "Storing",
        "False",
        "StoreFull",
        cut(
            f"retrieval takes no more of {names}: {refused[0].refused}; these pods go on and keep "
            "the newest in their spools, what is stored stays: make room for what comes"
        ),
    )


def _recording(judged: Judged, tally: Tally, now: float) -> Condition:
    if tally.failed:
        message = f"{len(tally.failed)} pods failed; {_why(tally.failed)}"
        return Condition("Recording", "False", "PodsFailed", cut(message))
    settings = judged.settings
    if settings is None:
        return Condition("Recording", "False", "BadSpec", "nothing is captured with a bad spec")
    if settings.suspended:
        return Condition("Recording", "False", "Suspended", "spec.suspend is true")
    if settings.has_ended(now):
        return Condition(
            "Recording", "False", "TimeOver", f"ended at {timestamp(settings.ends_at)}"
        )
    if judged.beyond:
        said = "nothing is captured beyond the namespace's ceiling"
        return Condition("Recording", "False", "BeyondCeiling", said)
    if not settings.has_started(now):
        return Condition(
            "Recording", "False", "Scheduled", f"begins at {timestamp(settings.starts_at)}"
        )
    if troubled := [item for item in tally.open if item.report.reason]:
        message = f"{len(troubled)} pods record with trouble; {_why(troubled)}"
        return Condition("Recording", "True", "PodsInTrouble", cut(message))
    if tally.open:
        return Condition("Recording", "True", "Capturing", "packets that match are recorded")
    if tally.finished:
        return Condition("Recording", "False", *_why_finished(tally.finished))
    if not tally.covered:
        return Condition("Recording", "False", "NoPods", "no pod with a sidecar is selected")
    return Condition("Recording", "Unknown", "Ordered", "pods are ordered, none has answered yet")


def _why(pods: Iterable[PodReport]) -> str:
    """What the pods said, and which of them."""

    def reason(report: Report) -> str:
        return f"{report.reason or 'failed'} ({(report.message or str(report.reason))[:200]})"

    return by_reason((reason(item.report), item.pod_name) for item in pods)


def _why_finished(finished: Iterable[PodReport]) -> tuple[str, str]:
    reasons = Counter(item.report.reason for item in finished)
    if reasons[Reason.SIZE] or reasons[Reason.PACKETS]:
        parts = []
        if reasons[Reason.SIZE]:
            parts.append(f"{reasons[Reason.SIZE]} pods reached limits.maxSize")
        if reasons[Reason.PACKETS]:
            parts.append(f"{reasons[Reason.PACKETS]} pods reached limits.maxPackets")
        return "LimitReached", " and ".join(parts)
    return "PodsFinished", "every pod that was ordered has finished"


def _clocks(reports: Sequence[PodReport]) -> Condition:
    skewed = sorted(
        {
            item.node or item.pod_name
            for item in reports
            if not -_SKEW_BEHIND_SECONDS <= item.report.at - item.received_at <= _SKEW_AHEAD_SECONDS
        }
    )
    if skewed:
        return Condition(
            "ClocksAgree",
            "False",
            "ClockSkew",
            cut(
                f"clocks of {names_of(skewed)} differ from the collector's by more than "
                f"{_SKEW_AHEAD_SECONDS:g} s; captures there begin and end by that clock"
            ),
        )
    return Condition("ClocksAgree", "True", "NoSkew", "no skew was seen in reports")


def _complete(judged: Judged, reports: Sequence[PodReport], now: float, carried: bool) -> Condition:
    settings = judged.settings
    if settings is None:
        return Condition("Complete", "Unknown", "BadSpec", "nothing is captured with a bad spec")
    if not settings.suspended and not settings.has_ended(now):
        return Condition("Complete", "False", "NotEnded", "more may come")
    if carried:
        return Condition("Complete", "False", "Shipping", "pods still ship what they recorded")
    unshipped = sum(item.report.backlog for item in reports if not item.report.shipped)
    dropped = sum(item.report.lost.bytes for item in reports)
    if unshipped or dropped:
        gaps = [f"{each.pod_name} {gap.which}" for each in reports for gap in each.report.lost.gaps]
        return Condition(
            "Complete",
            "False",
            "BacklogLost",
            cut(
                f"{unshipped} bytes were never shipped, and {dropped} bytes were dropped in pods "
                "for want of room" + (f": segments {names_of(gaps)}" if gaps else "")
            ),
        )
    return Condition("Complete", "True", "AllShipped", "everything that was recorded is kept")


def _with_times(
    conditions: Sequence[Condition], judged: Judged, now: float
) -> list[dict[str, Any]]:
    """Fill in times in the Kubernetes manner: a transition is a change of `status` alone."""
    before = {
        old["type"]: old
        for old in (judged.capture.status or {}).get("conditions") or ()
        if isinstance(old, dict) and "type" in old
    }
    filled = []
    for condition in conditions:
        old = before.get(condition.type, {})
        same = old.get("status") == condition.status and old.get("lastTransitionTime")
        filled.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": judged.capture.metadata.generation,
                "lastTransitionTime": old["lastTransitionTime"] if same else timestamp(now),
                "reason": condition.reason,
                "message": condition.message,
            }
        )
    return filled


def _with_trouble(pod: Pod) -> str:
    """A pod's name, with what keeps its sidecar from running when the kubelet says so."""
    for container in pod.status.init_containers:
        waiting = (container.state or {}).get("waiting")
        if container.name == keys.SIDECAR_CONTAINER and isinstance(waiting, dict):
            return f"{pod.metadata.name} (its sidecar waits: {waiting.get('reason', 'unknown')})"
    return pod.metadata.name
