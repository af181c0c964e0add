"""The pods that a capture selects, sorted by what can be said of them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from controller.view import NEVER, Judged, NamespaceView, PodReport
from nightcap.contract.coverage import has_sidecar
from nightcap.contract.objects import Pod
from nightcap.contract.reports import State

GRACE_SECONDS: Final = 20.0
"""How long after its orders a pod may be silent: sidecars report at once when they open."""
SILENT_SECONDS: Final = 120.0
"""Reports come at least every 30 s while a capture runs."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod that a capture selects.

    Attributes:
        ordered: Uids of the captures that are in its orders annotation now.
    """

    pod: Pod
    ordered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tally:
    """The pods that a capture selects, sorted by what can be said of them."""

    matching: tuple[Pod, ...]
    covered: tuple[Pod, ...]
    bare: tuple[Pod, ...]
    open: tuple[PodReport, ...]
    failed: tuple[PodReport, ...]
    finished: tuple[PodReport, ...]
    silent: tuple[Pod, ...]
    wake_at: float


def tally_of(judged: Judged, pods: Collection[PodFacts], view: NamespaceView, now: float) -> Tally:
    """Sort the pods that a capture selects."""
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
    return Tally(
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
