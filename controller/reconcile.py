"""What has to change so that the cluster is as the captures say.

Level-triggered: everything follows from the captures, the pods, the reports and the
clock, and after its actions were performed there is nothing more to do.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from controller.actions import Action, DeleteCapture, PatchOrders, RecordEvent, capture_ref, pod_ref
from controller.annotations import AnnotationPlan, plan_annotations
from controller.status import plan_status
from controller.tally import PodFacts
from controller.view import NEVER, Judged, NamespaceView, PodReport, crowded
from nightcap.contract import keys
from nightcap.contract.assignment import fitting_orders, selects
from nightcap.contract.captures import FOREVER, order_of
from nightcap.contract.coverage import takes_orders
from nightcap.contract.objects import Pod
from nightcap.contract.orders import BadOrders, CaptureOrder, Orders, dump_orders, parse_orders
from nightcap.contract.reports import Reason, State

BACKLOG_SECONDS: Final = 600.0
"""How long an ended capture stays in the orders, so that its backlog has a collector."""
_CLOCK_SLACK_SECONDS: Final = 5.0
_NO_ORDERS: Final = Orders()
_ENDED_BY_ORDERS = (Reason.NONE, Reason.TIME, Reason.ENDED, Reason.TERMINATED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again although nothing has changed.

    Attributes:
        wake_at: Seconds since the epoch; infinity for never.
    """

    actions: tuple[Action, ...] = ()
    wake_at: float = NEVER


@dataclass(frozen=True, slots=True)
class Wanted:
    """The orders that a pod is to have.

    Attributes:
        left_out: Names of captures for which there was no room.
        wake_at: When an entry's time is over.
    """

    orders: Orders
    left_out: tuple[str, ...] = ()
    wake_at: float = NEVER


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What one pod needs, and what it means for captures.

    Attributes:
        facts: None of a pod that is over: no capture counts it.
        selected_by: Uids of the captures that select it.
        carries: Uids of the captures whose entries a living sidecar of it holds.
    """

    facts: PodFacts | None = None
    selected_by: frozenset[str] = frozenset()
    carries: frozenset[str] = frozenset()
    actions: tuple[Action, ...] = ()
    wake_at: float = NEVER


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """What one capture needs: a new status, its deletion, or nothing."""

    action: Action | None = None
    wake_at: float = NEVER


def reconcile(view: NamespaceView, now: float) -> Plan:
    """Everything that has to be done in one namespace.

    This is the definition. `controller.ledger` comes to the same by looking only at what has
    changed.
    """
    view = replace(view, captures=crowded(view.captures, view.ceiling, now))
    annotations = plan_annotations(view, now)
    captures = {judged.uid: judged for judged in view.captures}
    selected: dict[str, list[PodFacts]] = {uid: [] for uid in captures}
    carried: set[str] = set()
    actions: list[Action] = []
    wakes = [annotations.wake_at]
    for pod in view.pods:
        plan = plan_pod(pod, captures, captures.values(), view, now)
        if plan.facts is not None:
            for uid in plan.selected_by:
                selected[uid].append(plan.facts)
        carried |= plan.carries
        actions.extend(plan.actions)
        wakes.append(plan.wake_at)
    # Orders first: the next packet may be the one that somebody waits for.
    actions.extend(annotations.actions)
    for uid, judged in captures.items():
        wakes.append(next_edge(judged, now))
        found = plan_capture(judged, selected[uid], view, annotations, uid in carried, now)
        wakes.append(found.wake_at)
        if found.action is not None:
            actions.append(found.action)
    return Plan(tuple(actions), min(wakes, default=NEVER))


def plan_pod(
    pod: Pod,
    captures: Mapping[str, Judged],
    candidates: Iterable[Judged],
    view: NamespaceView,
    now: float,
) -> PodPlan:
    """What one pod needs.

    Args:
        pod: The pod.
        captures: All captures of its namespace, by uid.
        candidates: Those that may select it: no other does.
        view: Its namespace; of it, only what is no pod is looked at.
        now: Seconds since the epoch.
    """
    if pod.is_over:
        return PodPlan()
    matching = frozenset(
        judged.uid for judged in candidates if selects(judged.capture, pod.metadata)
    )
    existing = orders_in(pod)
    facts = PodFacts(pod, frozenset(entry.id for entry in existing.captures))
    if not takes_orders(pod):
        return PodPlan(facts, matching)
    concerned = [captures[uid] for uid in matching | facts.ordered if uid in captures]
    wanted = desired_orders(pod, existing, concerned, matching, view, now)
    actions = _orders_actions(pod, existing, wanted, view, now)
    return PodPlan(facts, matching, facts.ordered, actions, wanted.wake_at)


def plan_capture(
    judged: Judged,
    selected: Collection[PodFacts],
    view: NamespaceView,
    annotations: AnnotationPlan,
    carried: bool,
    now: float,
) -> CapturePlan:
    """What one capture needs.

    Args:
        judged: The capture.
        selected: The pods that it selects.
        view: Its namespace; of it, only what is no pod is looked at.
        annotations: What the namespace's annotations come to.
        carried: Whether some living pod's orders hold it.
        now: Seconds since the epoch.
    """
    # What pods still ship is waited for: with the object its files and spools go.
    if _is_expired(judged, now, annotations.kept) and not carried:
        return CapturePlan(DeleteCapture(capture_ref(judged.capture)))
    update, wake_at = plan_status(judged, selected, view, annotations.faults, now, carried)
    return CapturePlan(update, wake_at)


def desired_orders(
    pod: Pod,
    existing: Orders,
    concerned: Iterable[Judged],
    matching: Container[str],
    view: NamespaceView,
    now: float,
) -> Wanted:
    """The orders that a pod with a sidecar is to have.

    Args:
        pod: A pod that `takes_orders`.
        existing: What its annotation says now.
        concerned: The captures that select it or are in its orders.
        matching: Uids of those that select it.
        view: Its namespace.
        now: Seconds since the epoch.
    """
    present = {entry.id: entry for entry in existing.captures}
    entries: list[CaptureOrder] = []
    for judged in concerned:
        report = view.reports.get(judged.uid, {}).get(pod.metadata.uid)
        entry = _entry(judged, present.get(judged.uid), report, now, judged.uid in matching)
        if entry is not None:
            entries.append(entry)
    orders = fitting_orders(view.collectors, entries, first=present)
    taken = {entry.id for entry in orders.captures}
    return Wanted(
        orders=orders,
        left_out=tuple(sorted(entry.name for entry in entries if entry.id not in taken)),
        wake_at=min((_entry_wakes_at(entry, now) for entry in orders.captures), default=NEVER),
    )


def _entry_wakes_at(entry: CaptureOrder, now: float) -> float:
    """When the clock alone next changes what becomes of an entry."""
    if entry.until <= now:
        return entry.until + BACKLOG_SECONDS
    return entry.until if entry.until < FOREVER else NEVER


def _entry(
    judged: Judged,
    present: CaptureOrder | None,
    report: PodReport | None,
    now: float,
    matches: bool,
) -> CaptureOrder | None:
    """One capture in one pod's orders.

    | capture | pod matches | entry is there | entry to be |
    | --- | --- | --- | --- |
    | runs | yes | any | until its end |
    | spec is bad | any | yes | as it is: what runs is not disturbed |
    | anything else | any | yes | until the earlier of what it says and now; gone when released |
    | anything else | any | no | none |
    """
    settings = judged.settings
    if settings is not None and judged.is_running(now) and matches:
        return order_of(judged.capture, settings, settings.ends_at)
    if present is None:
        return None
    until = present.until
    if settings is not None or judged.capture.spec.suspend or judged.is_leaving:
        # min: once it is ended, later rounds must not move the end along with the clock.
        until = min(until, int(now))
    if is_released(until, report, now):
        return None
    if settings is None:
        return present._replace(until=until)
    return order_of(judged.capture, settings, until)


def is_released(until: float, report: PodReport | None, now: float) -> bool:
    """Whether an entry that ends at `until` may go, and the pod's spool of it with it."""
    if now >= until + BACKLOG_SECONDS:
        return True
    if now < until or report is None or not report.report.shipped:
        return False
    said = report.report
    if said.state not in (State.FINISHED, State.FAILED):
        return False
    # A capture that was suspended, resumed and suspended again still has the report of its
    # first end, which tells nothing of what was recorded since.
    return said.reason not in _ENDED_BY_ORDERS or said.at >= until - _CLOCK_SLACK_SECONDS


def orders_in(pod: Pod) -> Orders:
    """What a pod's annotation says; what cannot be read is no orders."""
    return _read_orders(pod.metadata.annotation(keys.ORDERS) or "") or _NO_ORDERS


@lru_cache(maxsize=4096)
def _read_orders(text: str) -> Orders | None:
    """Orders as an annotation says them; None where nobody can read them.

    Remembered, as all pods of a capture have the same.
    """
    try:
        return parse_orders(text)
    except BadOrders:
        return None


def _orders_actions(
    pod: Pod, existing: Orders, wanted: Wanted, view: NamespaceView, now: float
) -> tuple[Action, ...]:
    actions: list[Action] = []
    if not _says(pod.metadata.annotation(keys.ORDERS), existing, wanted.orders):
        before = {entry.id: entry for entry in existing.captures}
        after = {entry.id: entry for entry in wanted.orders.captures}
        patch = PatchOrders(
            pod_ref(pod.metadata),
            dump_orders(wanted.orders) or None,
            frozenset(after),
            begun=tuple(
                entry
                for uid, entry in after.items()
                if entry.until > now and (uid not in before or before[uid].until <= now)
            ),
            over=tuple(entry for uid, entry in before.items() if uid not in after),
        )
        actions.append(patch)
    if wanted.left_out:
        event = RecordEvent(
            regarding=pod_ref(pod.metadata),
            type="Warning",
            reason="TooManyCaptures",
            message=(
                f"orders have no room for {len(wanted.left_out)} of the captures that select "
                f"this pod ({', '.join(wanted.left_out[:3])}); suspend or delete some"
            ),
            action="Order",
        )
        if (pod.metadata.uid, event.reason, event.message) not in view.memory.told:
            actions.append(event)
    return tuple(actions)


def _says(text: str | None, existing: Orders, orders: Orders) -> bool:
    """Whether an annotation already means these orders, however it is written."""
    if text is None or not orders.captures:
        return text is None and not orders.captures
    by_id = tuple(sorted(existing.captures, key=lambda entry: entry.id))
    return existing._replace(captures=by_id) == orders


def _is_expired(judged: Judged, now: float, kept: frozenset[str]) -> bool:
    settings = judged.settings
    if settings is None or judged.is_leaving:
        return False
    if judged.capture.source is not None and judged.capture.metadata.name in kept:
        return False
    return now >= settings.ends_at + settings.ttl_seconds


def next_edge(judged: Judged, now: float) -> float:
    """The next moment at which the clock alone changes what a capture means."""
    settings = judged.settings
    if settings is None or judged.is_leaving:
        return NEVER
    edges = (settings.starts_at, settings.ends_at, settings.ends_at + settings.ttl_seconds)
    return min((edge for edge in edges if edge > now), default=NEVER)
