"""A ledger comes to what `reconcile` says, whatever happens and in whatever order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json, structs

from controller.actions import Action, PatchOrders, RecordEvent, UpdateStatus, uid_of
from controller.decisions import Decisions
from controller.ledger import Ledger, News
from controller.reconcile import reconcile
from controller.reports import ReportBook
from controller.status import WRITE_EVERY_SECONDS
from controller.view import Memory, RetrievalView, judge
from controller.world import World
from nightcap.contract import keys
from nightcap.contract.ceilings import parse_ceiling
from nightcap.contract.objects import Namespace, ObjectMeta, Pod, Service, ServiceSpec
from nightcap.contract.orders import parse_orders
from nightcap.contract.reports import Reason, State
from nightcap.kube.reflector import Change
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_namespace,
    a_pod,
    a_report,
    a_view,
    applied,
    at,
    with_orders,
)

PODS = ("web-1", "web-2", "db-1")
CAPTURES = ("dns", "http", "pod-web-1")


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
            if not self._is_paced(action)
        )
        assert ours == sorted(repr(comparable(action, self.now)) for action in wanted)

    def _is_paced(self, action: Action) -> bool:
        """A status that was decided on before a clock that was set back made it wait again."""
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


def labels() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("web", "db")))


def pods() -> st.SearchStrategy[Pod]:
    return st.builds(
        lambda name, labels, injected, phase, deleted, on: a_pod(
            name,
            labels=labels,
            injected=injected,
            phase=phase,
            deleted=NOW if deleted else None,
            annotations={keys.CAPTURE: on} if on else None,
        ),
        st.sampled_from(PODS),
        labels(),
        st.sampled_from((True, True, True, False)),
        st.sampled_from(("Running", "Running", "Pending", "Succeeded")),
        st.sampled_from((False, False, False, True)),
        st.sampled_from((None, None, None, "on", "off", "maybe")),
    )


def captures() -> st.SearchStrategy[Any]:
    spec = st.fixed_dictionaries(
        {},
        optional={
            "suspend": st.booleans(),
            "startTime": st.sampled_from((at(NOW - 30), at(NOW + 100))),
            "duration": st.sampled_from(("60s", "1h", "never")),
            "filter": st.sampled_from(("", "udp port 53")),
            "ttlAfterFinished": st.sampled_from(("10s", "24h")),
        },
    )
    which = st.sampled_from(
        (
            {},
            {"selector": {"matchLabels": {"app": "web"}}},
            {"selector": {"matchLabels": {"app": "web", "tier": "db"}}},
            {"selector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}},
            {"podNames": ["web-2", "db-1"]},
        )
    )
    return st.builds(
        lambda name, spec, which, deleted: a_capture(
            name,
            source=keys.SOURCE_POD if name == "pod-web-1" else None,
            deleted=NOW if deleted else None,
            **{**spec, **({"podNames": ["web-1"]} if name == "pod-web-1" else which)},
        ),
        st.sampled_from(CAPTURES),
        spec,
        which,
        st.sampled_from((False, False, False, True)),
    )


def reports() -> st.SearchStrategy[Any]:
    return st.builds(
        lambda capture, pod, state, shipped, seq: a_report(
            capture,
            pod,
            state=state,
            shipped=shipped,
            seq=seq,
            reason=Reason.SIZE if state is State.FINISHED else Reason.NONE,
        ),
        st.sampled_from(CAPTURES),
        st.sampled_from(PODS),
        st.sampled_from(list(State)),
        st.booleans(),
        st.integers(1, 100),
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), pods()),
        st.tuples(st.just("capture"), captures()),
        st.tuples(st.just("report"), reports()),
        st.tuples(st.just("drop pod"), st.sampled_from(PODS)),
        st.tuples(st.just("drop capture"), st.sampled_from(CAPTURES)),
        st.tuples(st.just("clock"), st.sampled_from((1, 6, 45, 130, 700, 4000, 90_000, -50))),
        st.tuples(st.just("collectors"), st.sampled_from(("10.96.0.9", "10.96.0.10"))),
        st.tuples(st.just("away"), st.booleans()),
        st.tuples(st.just("perform"), st.booleans()),
        st.tuples(st.just("leading"), st.none()),
        st.tuples(st.just("namespace"), st.booleans()),
        st.tuples(
            st.just("ceiling"),
            st.sampled_from(
                (
                    None,
                    {"maxCaptures": 1},
                    {"maxCaptures": 0},
                    {"maxDuration": "30m"},
                    {"snapLength": 96, "maxCaptures": 2},
                )
            ),
        ),
        st.tuples(st.just("forged"), st.sampled_from(PODS)),
    ),
    min_size=10,
    max_size=25,
)


BEGINNINGS = st.tuples(
    st.lists(pods(), min_size=2, max_size=3), st.lists(captures(), min_size=1, max_size=3)
)


def populated(beginning: tuple[list[Pod], list[Any]]) -> Model:
    """A model whose first orders were written already."""
    model = Model()
    for pod in beginning[0]:
        model.put_pod(pod)
    for capture in beginning[1]:
        model.put_capture(capture)
    model.perform(model.look())
    return model


def step(model: Model, kind: str, value: Any) -> None:
    match kind:
        case "pod":
            model.put_pod(value)
        case "capture":
            old = model.captures.get(value.metadata.uid)
            model.put_capture(structs.replace(value, status=old.status if old else None))
        case "report":
            model.report(value)
        case "drop pod":
            model.drop_pod(a_pod(value).metadata.uid)
        case "drop capture":
            model.drop_capture(a_capture(value).metadata.uid)
        case "clock":
            model.now += value
        case "collectors":
            service = Service(ObjectMeta(), ServiceSpec(cluster_ip=value, cluster_ips=(value,)))
            model.world.on_service(Change("modified", service))
        case "away":
            model.world.on_retrieval(RetrievalView(unreachable=("10.0.0.1",) if value else ()))
        case "perform":
            actions = model.look()
            model.perform(actions if value else actions[: len(actions) // 2])
        case "leading":
            model.world.mark_all()
        case "namespace":
            model.put_namespace(a_namespace(enabled=value))
        case "ceiling":
            model.put_ceiling(value)
        case "forged":
            pod = model.pods.get(a_pod(value).metadata.uid)
            if pod is not None:
                model.put_pod(with_orders(pod, '{"v":1,"captures":"none"}'))


@settings(max_examples=80, deadline=None)
@given(BEGINNINGS, STEPS)
def test_after_any_events_a_ledger_comes_to_what_reconcile_says(beginning, steps):
    model = populated(beginning)
    for kind, value in steps:
        step(model, kind, value)
        model.look()
        model.check()


@settings(max_examples=25, deadline=None)
@given(BEGINNINGS, STEPS)
def test_also_when_events_come_many_at_a_time(beginning, steps):
    model = populated(beginning)
    for kind, value in steps:
        step(model, kind, value)
    model.look()
    model.check()


@pytest.fixture
def crowd() -> tuple[Ledger, Any, Any]:
    made = {f"p{n}": a_pod(f"p{n}", labels={"app": f"a{n % 10}"}) for n in range(50)}
    everyone = {pod.metadata.uid: pod for pod in made.values()}
    capture = judge(a_capture(selector={"matchLabels": {"app": "a1"}}))
    return Ledger(), everyone, capture


def test_an_event_of_one_pod_looks_at_that_pod_alone(crowd):
    ledger, everyone, capture = crowd
    view = a_view()
    ledger.update(News(pods=everyone, captures={capture.uid: capture}, everything=True), view, NOW)
    pod = everyone[a_pod("p7").metadata.uid]
    relabelled = structs.replace(
        pod, metadata=structs.replace(pod.metadata, labels={"app": "a1"}, resource_version="2")
    )
    plan = ledger.update(News(pods={pod.metadata.uid: relabelled}), view, NOW + 10)
    written = [action for action in plan.actions if isinstance(action, PatchOrders)]
    assert [action.pod.name for action in written] == ["p7"]  # the others' orders are under way


def test_pods_beyond_a_batch_are_planned_in_the_next_pass_and_captures_after_them(crowd):
    ledger, everyone, capture = crowd
    view = a_view()
    news = News(pods=everyone, captures={capture.uid: capture}, everything=True)
    plan = ledger.update(news, view, NOW, batch=20)
    assert plan.wake_at == NOW
    assert not any(isinstance(action, UpdateStatus) for action in plan.actions)
    passes = 1
    while plan.wake_at == NOW:
        plan = ledger.update(News(), view, NOW, batch=20)
        passes += 1
    assert passes == 3
    assert any(isinstance(action, UpdateStatus) for action in plan.actions)


def test_pods_of_a_new_capture_are_planned_before_those_that_a_start_looks_at(crowd):
    ledger, everyone, capture = crowd
    view = a_view()
    news = News(pods=everyone, captures={capture.uid: capture}, everything=True)
    plan = ledger.update(news, view, NOW, batch=20)
    assert all(item.is_backlog for item in plan.actions if isinstance(item, PatchOrders))
    asked = judge(a_capture("asked", selector={"matchLabels": {"app": "a9"}}))
    plan = ledger.update(News(captures={asked.uid: asked}), view, NOW, batch=20)
    written = [item for item in plan.actions if isinstance(item, PatchOrders)]
    fresh = [item.pod.name for item in written if not item.is_backlog]
    assert fresh == ["p9", "p19", "p29", "p39", "p49"]
    assert [item.is_backlog for item in written] == sorted(item.is_backlog for item in written)


def test_a_write_that_failed_is_decided_again_at_its_time(crowd):
    ledger, everyone, capture = crowd
    view = a_view()
    news = News(pods=everyone, captures={capture.uid: capture}, everything=True)
    first = ledger.update(news, view, NOW)
    failed = next(action for action in first.actions if isinstance(action, PatchOrders))
    plan = ledger.update(News(again={failed.pod.uid: NOW + 3}), view, NOW + 1)
    assert (plan.actions, plan.wake_at) == ((), NOW + 3)
    assert failed in ledger.update(News(), view, NOW + 3).actions


def test_a_report_that_says_shipped_lets_an_ended_entry_go():
    model = Model()
    model.put_pod(a_pod("web-1"))
    model.put_capture(a_capture("dns"))
    model.perform(model.look())
    model.put_capture(a_capture("dns", suspend=True))
    model.perform(model.look())
    model.now += 10
    assert not any(isinstance(action, PatchOrders) for action in model.look())
    model.report(a_report(state=State.FINISHED, shipped=True, sent=model.now))
    (written,) = [action for action in model.look() if isinstance(action, PatchOrders)]
    assert written.value is None


def test_what_is_wrong_with_an_annotation_reaches_the_status_of_its_capture():
    model = Model()
    model.put_pod(a_pod("web-1", annotations={keys.CAPTURE: "on"}))
    model.perform(model.look())
    model.perform(model.look())
    model.now += 10
    model.put_pod(a_pod("web-1", annotations={keys.CAPTURE: "on", keys.DURATION: "soon"}))
    model.look()
    model.check()
    (update,) = [item for item in model.outstanding() if isinstance(item, UpdateStatus)]
    assert "BadAnnotation" in repr(update.status)
