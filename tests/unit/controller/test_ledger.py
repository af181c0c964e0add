"""A ledger comes to what `reconcile` says, whatever happens and in whatever order."""

from typing import Any

import pytest
from hypothesis import given, settings
from msgspec import structs

from controller.actions import PatchOrders, RecordEvent, UpdateStatus
from controller.ledger import Ledger, News
from controller.view import judge
from nightcap.contract import keys
from nightcap.contract.reports import State
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_pod,
    a_report,
    a_view,
)
from tests.unit.controller.histories import BEGINNINGS, STEPS, populated, step
from tests.unit.controller.model import Model


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


def test_an_event_that_was_told_is_not_missed_while_the_write_beside_it_waits():
    """Found by the property above, once in many runs: it is the comparison that was wrong."""
    model = populated(([a_pod()], []))
    step(model, "pod", a_pod(annotations={keys.CAPTURE: "maybe"}))
    actions = model.look()
    assert sorted(type(action).__name__ for action in actions) == ["CreateCapture", "RecordEvent"]
    model.perform(tuple(action for action in actions if isinstance(action, RecordEvent)))
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
