"""A world with its decisions, compared with what the definition says."""

from typing import Any

from msgspec import json

from controller.actions import Action, PatchOrders, RecordEvent, UpdateStatus, uid_of
from controller.decisions import Decisions
from controller.reconcile import reconcile
from controller.reports import ReportBook
from controller.status import WRITE_EVERY_SECONDS
from controller.view import Memory, RetrievalView
from controller.world import World
from nightcap.contract.ceilings import parse_ceiling
from nightcap.contract.objects import Namespace, Pod
from nightcap.contract.orders import parse_orders
from nightcap.kube.reflector import Change
from tests.unit.controller.builders import (
    NOW,
    a_namespace,
    applied,
)


def comparable(action: Action, now: float) -> Any:
    """An action without the second at which it was decided."""
    match action:
        case PatchOrders(pod, value, ids):
            orders = parse_orders(value or "")
            entries = [
                entry._replace(until=0 if entry.until <= now else entry.until)
                for entry in orders.captures
            ]
            return "orders", pod.uid, orders.collectors, tuple(entries), ids
        case UpdateStatus(capture, status):
            conditions = [
                {k: v for k, v in item.items() if k != "lastTransitionTime"}
                for item in status["conditions"]
            ]
            return "status", capture.uid, repr({**status, "conditions": conditions})
        case RecordEvent():
            return "event", action.regarding.uid, action.reason, action.message
        case _:
            spec = {k: v for k, v in getattr(action, "spec", {}).items() if k != "startTime"}
            return type(action).__name__, uid_of(action), repr(spec)


class Model:
    """A world with its decisions, fed like the real one, beside the definition."""

    def __init__(self) -> None:
        self.now = NOW
        self.marked: set[str] = set()
        self.world = World(ReportBook(), Memory(), self.marked.add)
        self.decisions = Decisions(self.world)
        self.pods: dict[str, Pod] = {}
        self.captures: dict[str, Any] = {}
        self.namespace: Namespace | None = None
        self.version = 1
        self.put_namespace(a_namespace())
        self.world.on_retrieval(RetrievalView())

    def put_namespace(self, namespace: Namespace | None) -> None:
        old, self.namespace = self.namespace, namespace
        if namespace is not None:
            self.world.on_namespace(Change("modified" if old else "added", namespace, old))
        elif old is not None:
            self.world.on_namespace(Change("deleted", old, old))

    def put_ceiling(self, spec: dict[str, Any] | None) -> None:
        ceiling = parse_ceiling(
            json.encode({"metadata": {"name": "tight", "uid": "c"}, "spec": spec or {}})
        )
        kind: Any = "deleted" if spec is None else "modified"
        self.world.on_ceiling(Change(kind, ceiling))

    def put_pod(self, pod: Pod) -> None:
        old = self.pods.get(pod.metadata.uid)
        self.pods[pod.metadata.uid] = pod
        self.world.on_pod(Change("modified" if old else "added", pod, old))

    def drop_pod(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self.world.on_pod(Change("deleted", pod, pod))

    def put_capture(self, capture: Any) -> None:
        uid = capture.metadata.uid
        old = self.captures.get(uid)
        self.captures[uid] = capture
        self.world.on_capture(Change("modified" if old else "added", capture, old))

    def drop_capture(self, uid: str) -> None:
        capture = self.captures.pop(uid, None)
        if capture is not None:
            self.world.on_capture(Change("deleted", capture, capture))

    def report(self, report: Any) -> None:
        self.world.on_reports(self.world.book.put([report]))

    def look(self, batch: int = 500) -> tuple[Action, ...]:
        """Let the ledger take all news; what it would do."""
        done: list[Action] = []
        while True:
            plan = self.decisions.decide("shop", self.now)
            done += plan.actions
            if plan.wake_at > self.now:
                return tuple(done)

    def outstanding(self) -> tuple[Action, ...]:
        ledger = self.decisions._ledgers.get("shop")
        return ledger.outstanding if ledger is not None else ()

    def check(self) -> None:
        wanted = reconcile(self.world.view("shop"), self.now).actions
        ours = sorted(
            repr(comparable(action, self.now))
            for action in self.outstanding()
            if not self._has_passed(action)
        )
        assert ours == sorted(repr(comparable(action, self.now)) for action in wanted)

    def _has_passed(self, action: Action) -> bool:
        """What was decided on, and is not to be done any more though no news have come since.

        An Event that was told: no watch brings it back. A status, where the clock was set back:
        it has to wait again.
        """
        if isinstance(action, RecordEvent):
            event = (action.regarding.uid, action.reason, action.message)
            return event in self.world.memory.told
        if not isinstance(action, UpdateStatus):
            return False
        written_at = self.world.memory.status_written_at.get(action.capture.uid, 0.0)
        return abs(self.now - written_at) < WRITE_EVERY_SECONDS

    def perform(self, actions: tuple[Action, ...]) -> None:
        """What the API server would have afterwards, and its watches tell."""
        before = self.world.view("shop")
        after = applied(before, actions, self.now)
        for pod in after.pods:
            if self.pods.get(pod.metadata.uid) is not pod:
                self.put_pod(pod)
        left = {judged.uid: judged.capture for judged in after.captures}
        for uid in tuple(self.captures):
            if uid not in left:
                self.drop_capture(uid)
        for uid, capture in left.items():
            if self.captures.get(uid) is not capture:
                self.put_capture(capture)
