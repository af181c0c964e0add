"""What holds of reconcile whatever there is."""

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.reconcile import orders_in, reconcile
from controller.view import Memory
from nightcap.contract import keys
from nightcap.contract.reports import State
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_pod,
    a_report,
    a_view,
    applied,
    at,
)

_labels = st.fixed_dictionaries({"app": st.sampled_from(["web", "db"])})
_captures = st.lists(
    st.builds(
        lambda name, start, duration, suspend, app, bad, created: a_capture(
            name,
            created=NOW + created,
            suspend=suspend,
            **({"startTime": at(NOW + start)} if start is not None else {}),
            duration=f"{duration}s",
            **({"selector": {"matchLabels": {"app": app}}} if app else {}),
            **({"filter": "host nowhere"} if bad else {}),
            ttlAfterFinished="20m",
        ),
        name=st.sampled_from(["a1", "b2", "c3", "d4"]),
        start=st.none() | st.integers(-4000, 4000),
        duration=st.integers(1, 8000),
        suspend=st.booleans(),
        app=st.sampled_from(["", "web", "db"]),
        bad=st.integers(0, 9).map(lambda roll: roll == 0),
        created=st.integers(-5000, 5),
    ),
    max_size=4,
    unique_by=lambda capture: capture.metadata.name,
)
_annotations = st.sampled_from(
    [
        {},
        {},
        {keys.CAPTURE: "on"},
        {keys.CAPTURE: "off"},
        {keys.CAPTURE: "on", keys.DURATION: "5m"},
        {keys.CAPTURE: "maybe"},
        {keys.CAPTURE: "on", keys.FILTER: "host nowhere"},
    ]
)
_pods = st.lists(
    st.builds(
        lambda name, labels, injected, phase, deleted, annotations, owned: a_pod(
            name,
            labels=labels,
            injected=injected,
            phase=phase,
            deleted=NOW if deleted else None,
            annotations=annotations,
            owner=("StatefulSet", "web") if owned else None,
        ),
        name=st.sampled_from(["p1", "p2", "p3", "p4"]),
        labels=_labels,
        injected=st.integers(0, 3).map(bool),
        phase=st.sampled_from(["Running", "Running", "Pending", "Failed"]),
        deleted=st.integers(0, 5).map(lambda roll: roll == 0),
        annotations=_annotations,
        owned=st.booleans(),
    ),
    max_size=4,
    unique_by=lambda pod: pod.metadata.name,
)
_reports = st.lists(
    st.builds(
        lambda capture, pod, state, shipped, sent: a_report(
            capture, pod, state=state, shipped=shipped, sent=NOW + sent
        ),
        capture=st.sampled_from(["a1", "b2", "c3"]),
        pod=st.sampled_from(["p1", "p2", "p3"]),
        state=st.sampled_from(list(State)),
        shipped=st.booleans(),
        sent=st.integers(-3000, 1000),
    ),
    max_size=6,
)
_times = st.lists(st.integers(0, 3000), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(_captures, _pods, _reports, _times)
def test_performing_what_is_asked_leaves_nothing_to_do(captures, pods, reports, steps):
    """The fixpoint: the status may come once more, as it looks at orders now written."""
    view = a_view(captures, pods, reports, memory=Memory())
    now = NOW
    for step in steps:
        now += step
        for _ in range(4):
            # Each round as if five seconds had passed for the pace of status alone.
            view.memory.status_written_at.clear()
            plan = reconcile(view, now)
            if not plan.actions:
                break
            view = applied(view, plan.actions, now)
        view.memory.status_written_at.clear()
        assert reconcile(view, now).actions == ()


@settings(max_examples=150, deadline=None)
@given(_captures, _pods, _reports, _times)
def test_the_end_of_an_entry_that_does_not_run_never_moves_later(captures, pods, reports, steps):
    view = a_view(captures, pods, reports)
    now = NOW
    for step in steps:
        before = {pod.metadata.uid: orders_in(pod) for pod in view.pods}
        now += step
        view = applied(view, reconcile(view, now).actions, now)
        by_uid = {judged.uid: judged for judged in view.captures}
        for pod in view.pods:
            was = {entry.id: entry.until for entry in before[pod.metadata.uid].captures}
            for entry in orders_in(pod).captures:
                judged = by_uid[entry.id]
                if not judged.is_running(now) and entry.id in was:
                    assert entry.until <= was[entry.id]
                if not judged.is_running(now) and judged.settings is not None:
                    assert entry.until <= now


@settings(max_examples=150, deadline=None)
@given(_captures, _pods, _reports, st.integers(0, 5000))
def test_orders_hold_exactly_the_captures_that_run_and_select_and_only_such_as_exist(
    captures, pods, reports, later
):
    view = a_view(captures, pods, reports)
    for now in (NOW, NOW + later):
        for _ in range(3):
            view = applied(view, reconcile(view, now).actions, now)
    now = NOW + later
    for pod in view.pods:
        found = {entry.id: entry for entry in orders_in(pod).captures}
        assert set(found) <= {judged.uid for judged in view.captures}
        live = {uid for uid, entry in found.items() if entry.until > now}
        can = (
            pod.metadata.annotation(keys.INJECTED) is not None
            and pod.metadata.deletion_timestamp is None
            and not pod.is_over
        )
        app = (pod.metadata.labels or {})["app"]
        expected = {
            judged.uid
            for judged in view.captures
            if can
            and judged.is_running(now)
            and judged.capture.source is None
            and (
                judged.capture.spec.selector is None
                or (judged.capture.spec.selector.match_labels or {}).get("app") == app
            )
        }
        persons = {judged.uid for judged in view.captures if judged.capture.source is None}
        assert live & persons == expected
