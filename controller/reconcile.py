"""What has to change so that the cluster is as the captures say.

Level-triggered: everything follows from the captures, the pods, the reports and the
clock, and after its actions were performed there is nothing more to do.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.actions import Action, DeleteCapture, PatchOrders, RecordEvent, capture_ref, pod_ref
from controller.annotations import plan_annotations
from controller.status import plan_status
from controller.tally import PodFacts
from controller.view import NEVER, Judged, NamespaceView, PodReport
from nightcap.contract import keys
from nightcap.contract.assignment import fitting_orders, selects
from nightcap.contract.captures import order_of
from nightcap.contract.coverage import takes_orders
from nightcap.contract.objects import Pod
from nightcap.contract.orders import BadOrders, CaptureOrder, Orders, dump_orders, parse_orders
from nightcap.contract.reports import Reason, State

BACKLOG_SECONDS: Final = 600.0
"""How long an ended capture stays in the orders, so that its backlog has a collector."""
_CLOCK_SLACK_SECONDS: Final = 5.0
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


def reconcile(view: NamespaceView, now: float) -> Plan:
    """Everything that has to be done in one namespace."""
    annotations = plan_annotations(view, now)
    actions: list[Action] = []
    wakes = [annotations.wake_at]
    by_uid = {judged.uid: judged for judged in view.captures}
    selected: dict[str, list[PodFacts]] = {uid: [] for uid in by_uid}
    carried: set[str] = set()
    for pod in view.pods:
        if pod.is_over:
            continue
        matching = {uid for uid, judged in by_uid.items() if selects(judged.capture, pod.metadata)}
        existing = orders_in(pod)
        facts = PodFacts(pod, frozenset(entry.id for entry in existing.captures))
        for uid in matching:
            selected[uid].append(facts)
        if takes_orders(pod):
            carried |= facts.ordered
            concerned = [by_uid[uid] for uid in matching | facts.ordered if uid in by_uid]
            wanted = desired_orders(pod, existing, concerned, matching, view, now)
            wakes.append(wanted.wake_at)
            actions.extend(_orders_actions(pod, wanted, view))
    # Orders first: the next packet may be the one that somebody waits for.
    actions.extend(annotations.actions)
    for uid, judged in by_uid.items():
        wakes.append(_next_edge(judged, now))
        # What pods still ship is waited for: with the object its files and spools go.
        if _is_expired(judged, now, annotations.kept) and uid not in carried:
            actions.append(DeleteCapture(capture_ref(judged.capture)))
            continue
        update, wake_at = plan_status(judged, selected[uid], view, annotations.faults, now, carried)
        wakes.append(wake_at)
        if update is not None:
            actions.append(update)
    return Plan(tuple(actions), min(wakes, default=NEVER))


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
        wake_at=min(
            (entry.until + BACKLOG_SECONDS for entry in orders.captures if entry.until <= now),
            default=NEVER,
        ),
    )


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
        return replace(present, until=until)
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
    try:
        return parse_orders(pod.metadata.annotation(keys.ORDERS) or "")
    except BadOrders:
        return Orders()


def _orders_actions(pod: Pod, wanted: Wanted, view: NamespaceView) -> Sequence[Action]:
    actions: list[Action] = []
    text = pod.metadata.annotation(keys.ORDERS)
    if not _says(text, wanted.orders):
        ids = frozenset(entry.id for entry in wanted.orders.captures)
        actions.append(PatchOrders(pod_ref(pod.metadata), dump_orders(wanted.orders) or None, ids))
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
    return actions


def _says(text: str | None, orders: Orders) -> bool:
    """Whether an annotation already means these orders, however it is written."""
    if text is None or not orders.captures:
        return text is None and not orders.captures
    try:
        current = parse_orders(text)
    except BadOrders:
        return False
    by_id = tuple(sorted(current.captures, key=lambda entry: entry.id))
    return replace(current, captures=by_id) == orders


def _is_expired(judged: Judged, now: float, kept: frozenset[str]) -> bool:
    settings = judged.settings
    if settings is None or judged.is_leaving:
        return False
    if judged.capture.source is not None and judged.capture.metadata.name in kept:
        return False
    return now >= settings.ends_at + settings.ttl_seconds


def _next_edge(judged: Judged, now: float) -> float:
    """The next moment at which the clock alone changes what a capture means."""
    settings = judged.settings
    if settings is None or judged.is_leaving:
        return NEVER
    edges = (settings.starts_at, settings.ends_at, settings.ends_at + settings.ttl_seconds)
    return min((edge for edge in edges if edge > now), default=NEVER)
