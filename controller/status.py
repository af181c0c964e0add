"""The status of a capture: what is true of it now, in words that people can act on.

Bounded whatever the number of pods: sums, at most `_MAX_NODES` nodes, as many names of
files as `_MAX_FILES_BYTES` have room for, messages that name a few pods and count the rest.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from controller.actions import UpdateStatus, capture_ref
from controller.view import NEVER, Judged, NamespaceView, PodReport
from nightcap.contract import keys
from nightcap.contract.captures import PacketCapture
from nightcap.contract.coverage import has_sidecar, why_without_sidecar
from nightcap.contract.objects import Pod
from nightcap.contract.reports import Reason, State
from nightcap.contract.segments import BadName, parse_file_name

WRITE_EVERY_SECONDS: Final = 5.0
GRACE_SECONDS: Final = 20.0
"""How long after its orders a pod may be silent: sidecars report at once when they open."""
SILENT_SECONDS: Final = 120.0
"""Reports come at least every 30 s while a capture runs."""
_SKEW_AHEAD_SECONDS: Final = 1.0
# A report that waited in a retry looks like a clock that is behind.
_SKEW_BEHIND_SECONDS: Final = 10.0
_LAST_SECOND: Final = 253402300799.0
_MAX_NODES: Final = 200
_MAX_FILES_BYTES: Final = 34_000
"""Of `status.files` as JSON; the rest of a status takes at most 14 kB."""
_ENTRY_BYTES: Final = 80
_NAMED: Final = 5
_MAX_MESSAGE: Final = 1500


class Phase(StrEnum):
    """Where a capture stands."""

    SCHEDULED = "Scheduled"
    WAITING = "WaitingForTraffic"
    CAPTURING = "Capturing"
    FINISHED = "Finished"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod that a capture selects.

    Attributes:
        ordered: Uids of the captures that are in its orders annotation now.
    """

    pod: Pod
    ordered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition before its times are filled in; `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Tally:
    """The pods that a capture selects, sorted by what can be said of them."""

    matching: tuple[Pod, ...]
    covered: tuple[Pod, ...]
    bare: tuple[Pod, ...]
    open: tuple[PodReport, ...]
    failed: tuple[PodReport, ...]
    finished: tuple[PodReport, ...]
    silent: tuple[Pod, ...]
    wake_at: float


def plan_status(
    judged: Judged,
    pods: Sequence[PodFacts],
    view: NamespaceView,
    faults: Mapping[str, tuple[str, ...]],
    now: float,
    carried: Collection[str] = (),
) -> tuple[UpdateStatus | None, float]:
    """The write that a capture's status needs, if it is due.

    Args:
        judged: The capture.
        pods: The pods that it selects, those that are over left out.
        view: Its namespace.
        faults: Name of an annotation capture -> what is wrong with the annotations.
        now: Seconds since the epoch.
        carried: Uids of captures that some living pod's orders hold.

    Returns:
        (the write or None, when to look again).
    """
    if judged.is_leaving or not view.retrieval.asked:
        return None, NEVER
    capture = judged.capture
    tally = _tally(judged, pods, view, now)
    status = desired_status(
        judged, tally, view, _faults_of(capture, faults), now, judged.uid in carried
    )
    if status == capture.status:
        return None, tally.wake_at
    written_at = view.memory.status_written_at.get(judged.uid)
    # abs: a clock that was set back must not hold a status for the hours in between.
    if written_at is not None and abs(now - written_at) < WRITE_EVERY_SECONDS:
        return None, min(tally.wake_at, written_at + WRITE_EVERY_SECONDS)
    return UpdateStatus(capture_ref(capture), status, capture.status), tally.wake_at


def _faults_of(capture: PacketCapture, faults: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return () if capture.source is None else faults.get(capture.metadata.name, ())


def desired_status(
    judged: Judged,
    tally: _Tally,
    view: NamespaceView,
    faults: tuple[str, ...],
    now: float,
    carried: bool,
) -> dict[str, Any]:
    """The whole of `status`."""
    metadata = judged.capture.metadata
    running = judged.is_running(now)
    reports = tuple(view.reports.get(judged.uid, {}).values())
    # A collector that is away takes its numbers along; the last known ones are nearer to
    # the truth, as they only grow.
    known = {} if view.retrieval.is_reachable else judged.capture.status or {}
    directory = f"{metadata.namespace}/{metadata.name}"
    files = _files(directory, _nodes(judged, tally, reports, carried, now), reports)
    conditions = [_valid(judged)]
    if judged.capture.source is not None:
        conditions.append(_annotations(faults))
    if view.injection_off:
        conditions.append(_injection_off(view.injection_off))
    conditions += [
        _covered(tally, view),
        _reporting(tally, view, running),
        _recording(judged, tally, now),
        _clocks(reports),
        _complete(judged, reports, now, carried),
    ]
    return {
        "phase": str(_phase(judged, tally, faults, now)),
        "observedGeneration": metadata.generation,
        **_window(judged),
        "pods": {
            "matching": len(tally.matching),
            "capturing": len(tally.open) if running else 0,
            "withoutSidecar": len(tally.bare),
            "notReporting": len(tally.silent),
            "failed": len(tally.failed),
        },
        "packets": _at_least(known, "packets", (item.report.packets for item in reports)),
        "dropped": _at_least(known, "dropped", (item.report.dropped for item in reports)),
        "size": _at_least(known, "size", (item.report.bytes for item in reports)),
        "fileCount": _at_least(known, "fileCount", (item.file_count for item in reports)),
        "files": known.get("files") or files if known else files,
        "conditions": _with_times(conditions, judged, now),
    }


def _window(judged: Judged) -> dict[str, str]:
    settings = judged.settings
    if settings is None:
        return {}
    times = {"startTime": _timestamp(settings.starts_at)}
    if settings.has_end:
        times["endTime"] = _timestamp(settings.ends_at)
    return times


def _at_least(known: Mapping[str, Any], key: str, counts: Iterable[int]) -> int:
    before = known.get(key)
    return max(sum(counts), before if isinstance(before, int) else 0)


def _tally(judged: Judged, pods: Sequence[PodFacts], view: NamespaceView, now: float) -> _Tally:
    # A terminating pod is on its way out: it can neither be ordered nor repaired.
    alive = [facts for facts in pods if facts.pod.metadata.deletion_timestamp is None]
    reports = view.reports.get(judged.uid, {})
    covered = [facts for facts in alive if has_sidecar(facts.pod)]
    by_state: dict[State, list[PodReport]] = {state: [] for state in State}
    silent: list[Pod] = []
    wake_at = NEVER
    for facts in covered:
        report = reports.get(facts.pod.metadata.uid)
        if report is not None:
            by_state[report.report.state].append(report)
        if not judged.is_running(now) or not view.retrieval.is_reachable:
            continue
        late_at = _late_at(judged, facts, report, view)
        if late_at <= now:
            silent.append(facts.pod)
        else:
            wake_at = min(wake_at, late_at)
    return _Tally(
        matching=tuple(facts.pod for facts in alive),
        covered=tuple(facts.pod for facts in covered),
        bare=tuple(facts.pod for facts in alive if not has_sidecar(facts.pod)),
        open=tuple(by_state[State.WAITING] + by_state[State.CAPTURING]),
        failed=tuple(by_state[State.FAILED]),
        finished=tuple(by_state[State.FINISHED]),
        silent=tuple(silent),
        wake_at=wake_at,
    )


def _late_at(
    judged: Judged, facts: PodFacts, report: PodReport | None, view: NamespaceView
) -> float:
    """When a pod's silence begins to mean something; infinity while it cannot speak."""
    if report is not None and report.report.state in (State.FINISHED, State.FAILED):
        return NEVER
    pod = facts.pod
    if pod.status.phase != "Running" or judged.uid not in facts.ordered or not judged.settings:
        return NEVER
    if report is not None:
        return report.received_at + SILENT_SECONDS
    created = pod.metadata.creation_timestamp
    ordered_at = view.memory.ordered_at.get((judged.uid, pod.metadata.uid), 0.0)
    return GRACE_SECONDS + max(
        judged.settings.starts_at, created.timestamp() if created else 0.0, ordered_at
    )


def _phase(judged: Judged, tally: _Tally, faults: tuple[str, ...], now: float) -> Phase:
    settings = judged.settings
    if settings is None:
        return Phase.ERROR
    if settings.suspended and faults:
        return Phase.ERROR
    if settings.suspended or settings.has_ended(now):
        return Phase.FINISHED
    if not settings.has_started(now):
        return Phase.SCHEDULED
    if any(item.report.state is State.CAPTURING for item in tally.open):
        return Phase.CAPTURING
    if tally.open or not tally.covered:
        return Phase.WAITING
    if len(tally.finished) + len(tally.failed) < len(tally.covered):
        return Phase.WAITING
    return Phase.FINISHED if tally.finished else Phase.ERROR


def _valid(judged: Judged) -> Condition:
    if judged.faults:
        return Condition("Valid", "False", "BadSpec", _cut("; ".join(judged.faults)))
    return Condition("Valid", "True", "Accepted", "the spec is understood")


def _annotations(faults: tuple[str, ...]) -> Condition:
    if faults:
        return Condition("AnnotationsValid", "False", "BadAnnotation", _cut("; ".join(faults)))
    return Condition("AnnotationsValid", "True", "Accepted", "the annotations are understood")


def _injection_off(why: str) -> Condition:
    return Condition(
        "Injecting",
        "False",
        "InjectionOff",
        _cut(f"injection is switched off in the whole cluster, new pods get no sidecar: {why}"),
    )


def _covered(tally: _Tally, view: NamespaceView) -> Condition:
    if not tally.matching:
        return Condition("PodsCovered", "Unknown", "NoMatchingPods", "no pod is selected")
    if not tally.bare:
        return Condition(
            "PodsCovered", "True", "AllInjected", "every pod that is selected has its sidecar"
        )
    why: dict[str, list[str]] = {}
    for pod in tally.bare:
        reason = why_without_sidecar(pod, view.namespace)
        why.setdefault(reason, []).append(pod.metadata.name)
    parts = [f"{_names(names)}: {reason}" for reason, names in sorted(why.items())]
    message = f"{len(tally.bare)} of {len(tally.matching)} pods have no sidecar; " + "; ".join(
        parts
    )
    return Condition("PodsCovered", "False", "PodsWithoutSidecar", _cut(message))


def _reporting(tally: _Tally, view: NamespaceView, running: bool) -> Condition:
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
            _cut(
                f"collectors do not answer: {_names(view.retrieval.unreachable)}; "
                "the numbers are the last known"
            ),
        )
    if tally.silent:
        names = [_with_trouble(pod) for pod in tally.silent]
        return Condition(
            "Reporting",
            "False",
            "PodsNotReporting",
            _cut(
                f"{len(names)} of {len(tally.covered)} pods do not report: {_names(names)}; "
                "they may capture all the same: look for a network policy or mesh between "
                "them and the collector (port 20443)"
            ),
        )
    if not running or not tally.covered:
        return Condition("Reporting", "Unknown", "NothingToReport", "no pod has to report now")
    return Condition("Reporting", "True", "PodsReport", "every pod that should report does")


def _recording(judged: Judged, tally: _Tally, now: float) -> Condition:
    if tally.failed:
        why: dict[str, list[str]] = {}
        for item in tally.failed:
            said = item.report.message or str(item.report.reason)
            why.setdefault(f"{item.report.reason or 'failed'} ({said[:200]})", []).append(
                item.pod_name
            )
        parts = [f"{_names(names)}: {reason}" for reason, names in sorted(why.items())]
        message = f"{len(tally.failed)} pods failed; " + "; ".join(parts)
        return Condition("Recording", "False", "PodsFailed", _cut(message))
    settings = judged.settings
    if settings is None:
        return Condition("Recording", "False", "BadSpec", "nothing is captured with a bad spec")
    if settings.suspended:
        return Condition("Recording", "False", "Suspended", "spec.suspend is true")
    if settings.has_ended(now):
        return Condition(
            "Recording", "False", "TimeOver", f"ended at {_timestamp(settings.ends_at)}"
        )
    if not settings.has_started(now):
        return Condition(
            "Recording", "False", "Scheduled", f"begins at {_timestamp(settings.starts_at)}"
        )
    if tally.open:
        return Condition("Recording", "True", "Capturing", "packets that match are recorded")
    if tally.finished:
        return Condition("Recording", "False", *_why_finished(tally.finished))
    if not tally.covered:
        return Condition("Recording", "False", "NoPods", "no pod with a sidecar is selected")
    return Condition("Recording", "Unknown", "Ordered", "pods are ordered, none has answered yet")


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
            _cut(
                f"clocks of {_names(skewed)} differ from the collector's by more than "
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
        return Condition(
            "Complete",
            "False",
            "BacklogLost",
            f"{unshipped} bytes were never shipped, and {dropped} bytes were dropped in pods "
            "for want of room",
        )
    return Condition("Complete", "True", "AllShipped", "everything that was recorded is kept")


def _nodes(
    judged: Judged, tally: _Tally, reports: Sequence[PodReport], carried: bool, now: float
) -> dict[str, Phase]:
    """What every node with matching pods is at, by its name."""
    is_live = carried or judged.is_running(now)
    states: dict[str, set[State]] = {}
    for item in reports:
        if item.node:
            states.setdefault(item.node, set()).add(item.report.state)
    nodes = {node: _state_of_node(found, is_live) for node, found in states.items()}
    settings = judged.settings
    for pod in tally.covered:
        node = pod.spec.node_name
        if not node or node in nodes or settings is None:
            continue
        if settings.suspended or settings.has_ended(now):
            nodes[node] = Phase.FINISHED
        else:
            nodes[node] = Phase.WAITING if settings.has_started(now) else Phase.SCHEDULED
    return nodes


def _files(
    directory: str, nodes: Mapping[str, Phase], reports: Iterable[PodReport]
) -> list[dict[str, Any]]:
    """One entry a node, with the newest files of its pods: as many as a status has room for."""
    of_node: dict[str, list[str]] = {}
    for item in reports:
        if item.node:
            of_node.setdefault(item.node, []).extend(item.file_names)
    shown, room = [], _MAX_FILES_BYTES
    for node in sorted(nodes)[:_MAX_NODES]:
        room -= len(node) + len(directory) + _ENTRY_BYTES
        if room < 0:
            break
        shown.append(node)
    share = max(room, 0) // max(len(shown), 1)
    return [
        {
            "node": node,
            "directory": directory,
            "fileNames": _newest(of_node.get(node, ()), share),
            "state": str(nodes[node]),
        }
        for node in shown
    ]


def _newest(names: Collection[str], room: int) -> list[str]:
    """The newest of file names that fit into `room` bytes, sorted as Calico sorts them."""
    taken = []
    for name in sorted(set(names), key=_first_packet, reverse=True):
        room -= len(name) + 4
        if room < 0:
            break
        taken.append(name)
    return sorted(taken)


def _first_packet(name: str) -> tuple[int, str]:
    try:
        return parse_file_name(name).first_us, name
    except BadName:
        return 0, name  # of a later release; the oldest, so that what is known comes first


def _state_of_node(states: set[State], is_live: bool) -> Phase:
    if states == {State.FAILED}:
        return Phase.ERROR
    # The last report of a pod that was killed says for ever that it captures.
    if is_live and State.CAPTURING in states:
        return Phase.CAPTURING
    return Phase.WAITING if is_live and State.WAITING in states else Phase.FINISHED


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
                "lastTransitionTime": old["lastTransitionTime"] if same else _timestamp(now),
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


def _names(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"


def _timestamp(at: float) -> str:
    # A schedule can lie beyond what a calendar of four digits holds.
    at = min(max(at, 0.0), _LAST_SECOND)
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
