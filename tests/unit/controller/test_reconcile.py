from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from controller.actions import DeleteCapture, PatchOrders, RecordEvent, UpdateStatus
from controller.reconcile import BACKLOG_SECONDS, is_released, orders_in, reconcile
from controller.view import NEVER, Memory, NamespaceView, judge
from nightcap.contract import keys
from nightcap.contract.captures import FOREVER
from nightcap.contract.ceilings import Ceiling
from nightcap.contract.orders import CaptureOrder, Orders, dump_orders, parse_orders
from nightcap.contract.reports import Reason, State
from tests.unit.controller.builders import (
    COLLECTORS,
    NOW,
    a_capture,
    a_pod,
    a_report,
    a_view,
    applied,
    at,
    uid_of,
    with_orders,
)


def patches(view: NamespaceView, now: float = NOW) -> dict[str, Orders | None]:
    """Pod name -> the orders that are written (None: removed)."""
    return {
        action.pod.name: None if action.value is None else parse_orders(action.value)
        for action in reconcile(view, now).actions
        if isinstance(action, PatchOrders)
    }


def entries(view: NamespaceView, pod: str = "web-1") -> dict[str, CaptureOrder]:
    """Capture name -> entry that a pod's annotation holds now."""
    found = next(item for item in view.pods if item.metadata.name == pod)
    return {entry.name: entry for entry in orders_in(found).captures}


def settled(view: NamespaceView, now: float = NOW) -> NamespaceView:
    return applied(view, reconcile(view, now).actions, now)


def with_captures(view: NamespaceView, *captures) -> NamespaceView:
    return replace(view, captures=a_view(list(captures)).captures)


def running(**spec) -> NamespaceView:
    """A pod that has the orders of one running capture."""
    return settled(a_view([a_capture(**spec)], [a_pod()]))


def test_a_running_capture_orders_every_pod_that_it_selects():
    capture = a_capture(selector={"matchLabels": {"app": "web"}}, filter="udp port 53")
    pods = [
        a_pod("web-1", labels={"app": "web"}),
        a_pod("web-2", labels={"app": "web"}),
        a_pod("db-1", labels={"app": "db"}),
    ]
    written = patches(a_view([capture], pods))
    assert sorted(written) == ["web-1", "web-2"]
    orders = written["web-1"]
    assert orders is not None
    assert orders.collectors == COLLECTORS
    assert [(e.id, e.filter, e.until) for e in orders.captures] == [
        (uid_of("dns"), "udp port 53", NOW - 60 + 3600)
    ]


def test_all_pods_of_a_capture_get_the_same_value():
    plan = reconcile(a_view([a_capture()], [a_pod("a"), a_pod("b")]), NOW)
    values = {action.value for action in plan.actions if isinstance(action, PatchOrders)}
    assert len(values) == 1


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod(injected=False), id="without sidecar"),
        pytest.param(a_pod(phase="Succeeded"), id="over"),
        pytest.param(a_pod(phase="Failed"), id="failed"),
        pytest.param(a_pod(deleted=NOW), id="terminating"),
        pytest.param(
            a_pod(injected=False, annotations={keys.INJECTED: "{}"}), id="copied annotation"
        ),
    ],
)
def test_a_pod_that_cannot_be_ordered_is_left_alone(pod):
    assert patches(a_view([a_capture()], [pod])) == {}


def test_a_pod_without_captures_and_without_orders_is_left_alone():
    assert reconcile(a_view([], [a_pod()]), NOW).actions == ()


def test_orders_written_in_another_way_but_meaning_the_same_are_left_alone():
    view = running()
    (pod,) = view.pods
    text = pod.metadata.annotation(keys.ORDERS)
    assert text is not None
    spaced = text.replace(",", " , ").replace('"v":1', '"v": 1, "later": [1]')
    assert patches(replace(view, pods=(with_orders(pod, spaced),))) == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"v":2,"captures":[]}', "", '{"v":1,"captures":[]}'])
def test_orders_that_mean_nothing_are_replaced_or_removed(text):
    pod = with_orders(a_pod(), text)
    assert patches(a_view([], [pod])) == {"web-1": None}
    (orders,) = patches(a_view([a_capture()], [pod])).values()
    assert orders is not None
    assert len(orders.captures) == 1


def test_orders_of_a_foreign_capture_are_taken_out():
    foreign = Orders(COLLECTORS, (CaptureOrder("ff", "other", "x", int(NOW) + 99),))
    assert patches(a_view([], [with_orders(a_pod(), dump_orders(foreign))])) == {"web-1": None}


def test_orders_copied_from_a_pod_that_is_selected_end_at_once_in_one_that_is_not():
    capture = a_capture(selector={"matchLabels": {"app": "web"}})
    view = settled(a_view([capture], [a_pod(labels={"app": "web"})]))
    copied = view.pods[0].metadata.annotation(keys.ORDERS)
    thief = with_orders(a_pod("db-1", labels={"app": "db"}), copied)
    (orders,) = patches(replace(view, pods=(thief,))).values()
    assert orders is not None
    assert [entry.until for entry in orders.captures] == [NOW]


def test_new_addresses_of_the_collector_are_written_to_every_pod():
    moved = replace(running(), collectors=(("fd00::9", 20443),))
    (orders,) = patches(moved).values()
    assert orders is not None
    assert orders.collectors == (("fd00::9", 20443),)


def test_changing_a_running_capture_changes_the_orders():
    view = with_captures(running(), a_capture(filter="tcp port 80", duration="2h"))
    (orders,) = patches(view).values()
    assert orders is not None
    assert [(e.filter, e.until) for e in orders.captures] == [("tcp port 80", NOW - 60 + 7200)]


@pytest.mark.parametrize(
    "capture",
    [
        pytest.param(a_capture(suspend=True), id="suspended"),
        pytest.param(a_capture(endTime=at(NOW - 5)), id="endTime set to the past"),
        pytest.param(a_capture(selector={"matchLabels": {"app": "other"}}), id="matches no more"),
        pytest.param(a_capture(startTime=at(NOW + 600)), id="moved to the future"),
        pytest.param(a_capture(deleted=NOW), id="being deleted, held by a finalizer"),
    ],
)
def test_ending_a_capture_sets_until_to_now_and_keeps_the_entry(capture):
    view = settled(with_captures(running(), capture))
    assert entries(view)["dns"].until == NOW
    for later in (NOW + 1, NOW + 30, NOW + BACKLOG_SECONDS - 1):
        assert patches(view, later) == {}


def test_a_pod_that_stops_to_match_by_its_labels_ends():
    capture = a_capture(selector={"matchLabels": {"app": "web"}})
    view = settled(a_view([capture], [a_pod(labels={"app": "web"})]))
    (pod,) = view.pods
    renamed = with_orders(a_pod(labels={"app": "canary"}), pod.metadata.annotation(keys.ORDERS))
    assert entries(settled(replace(view, pods=(renamed,))))["dns"].until == NOW


def test_a_capture_that_simply_runs_out_needs_no_write():
    view = running()
    end = NOW - 60 + 3600
    assert patches(view, end + 1) == {}
    assert entries(view)["dns"].until == end


def test_an_ended_entry_goes_after_ten_minutes_at_the_moment_that_was_announced():
    view = settled(with_captures(running(), a_capture(suspend=True)))
    plan = reconcile(view, NOW + 20)
    assert plan.wake_at <= NOW + BACKLOG_SECONDS
    assert patches(view, NOW + BACKLOG_SECONDS) == {"web-1": None}


def test_an_ended_entry_goes_when_its_report_says_shipped():
    view = settled(with_captures(running(), a_capture(suspend=True)))
    report = a_report(state=State.FINISHED, reason=Reason.TIME, shipped=True, sent=NOW + 1)
    told = replace(view, reports=a_view(reports=[report]).reports)
    assert patches(told, NOW + 2) == {"web-1": None}


def test_the_report_of_another_pod_releases_nothing():
    view = settled(with_captures(running(), a_capture(suspend=True)))
    report = a_report(pod="web-2", state=State.FINISHED, shipped=True, sent=NOW + 1)
    assert patches(replace(view, reports=a_view(reports=[report]).reports), NOW + 2) == {}


@pytest.mark.parametrize(
    ("state", "reason", "shipped", "sent", "released"),
    [
        pytest.param(State.FINISHED, Reason.TIME, True, NOW + 1, True, id="shipped after the end"),
        pytest.param(State.FINISHED, Reason.TIME, False, NOW + 1, False, id="still ships"),
        pytest.param(State.CAPTURING, Reason.NONE, True, NOW + 1, False, id="still captures"),
        pytest.param(
            State.FINISHED, Reason.TIME, True, NOW - 900, False, id="report of an earlier end"
        ),
        pytest.param(State.FINISHED, Reason.SIZE, True, NOW - 900, True, id="was full long ago"),
        pytest.param(State.FAILED, Reason.BAD_FILTER, True, NOW - 900, True, id="never began"),
    ],
)
def test_which_report_releases_an_entry(state, reason, shipped, sent, released):
    report = a_report(state=state, reason=reason, shipped=shipped, sent=sent)
    assert is_released(NOW, report, NOW + 2) is released


def test_a_running_capture_that_is_full_in_a_pod_keeps_its_entry():
    view = running()
    report = a_report(state=State.FINISHED, reason=Reason.SIZE, shipped=True)
    assert patches(replace(view, reports=a_view(reports=[report]).reports)) == {}


def test_deleting_a_capture_removes_its_entry_at_once_and_leaves_the_others():
    view = settled(a_view([a_capture("dns"), a_capture("http")], [a_pod()]))
    assert sorted(entries(view)) == ["dns", "http"]
    after = settled(with_captures(view, a_capture("http")))
    assert sorted(entries(after)) == ["http"]
    assert patches(with_captures(after)) == {"web-1": None}


def test_a_pod_without_the_entry_does_not_get_one_of_an_ended_capture():
    assert patches(a_view([a_capture(suspend=True)], [a_pod()])) == {}
    assert patches(a_view([a_capture(created=NOW - 9999)], [a_pod()])) == {}


def test_resuming_a_capture_starts_it_again():
    view = settled(with_captures(running(), a_capture(suspend=True)))
    resumed = settled(with_captures(view, a_capture(startTime=at(NOW + 5))), NOW + 5)
    assert entries(resumed)["dns"].until == NOW + 5 + 3600


def test_a_scheduled_capture_is_ordered_at_its_time_and_not_before():
    view = a_view([a_capture(startTime=at(NOW + 90))], [a_pod()])
    plan = reconcile(view, NOW)
    assert patches(view) == {}
    assert plan.wake_at <= NOW + 90
    view = settled(view)
    assert reconcile(view, NOW + 10).wake_at == NOW + 90
    assert patches(view, NOW + 89.9) == {}
    (orders,) = patches(view, NOW + 90).values()
    assert orders is not None
    assert orders.captures[0].until == NOW + 90 + 3600


def test_a_capture_whose_window_passed_unseen_is_not_run_late():
    view = a_view([a_capture(created=NOW - 9000, startTime=at(NOW - 8000))], [a_pod()])
    assert patches(view) == {}


def test_a_capture_without_start_time_runs_although_our_clock_is_behind_the_servers():
    (orders,) = patches(a_view([a_capture(created=NOW + 3)], [a_pod()])).values()
    assert orders is not None
    assert len(orders.captures) == 1


def test_a_capture_never_reaches_pods_of_another_namespace():
    view = a_view([a_capture(namespace="other")], [a_pod(namespace="shop")])
    assert patches(view) == {}


@pytest.mark.parametrize("spec", [{"filter": "host example"}, {"snapLength": "many"}])
def test_a_bad_spec_orders_nothing_and_disturbs_nothing(spec):
    assert patches(a_view([a_capture(**spec)], [a_pod()])) == {}
    view = with_captures(running(), a_capture(**spec))
    assert patches(view) == {}
    assert entries(view)["dns"].until == NOW - 60 + 3600
    end = NOW - 60 + 3600
    assert patches(view, end + 10) == {}
    assert patches(view, end + BACKLOG_SECONDS) == {"web-1": None}


def test_more_captures_than_a_sidecar_reads_leave_those_that_it_has_and_say_so():
    first = [a_capture(f"c{number:03}") for number in range(40, 100)]
    view = settled(a_view(first, [a_pod()]))
    more = [a_capture(f"c{number:03}") for number in range(100)]
    view = with_captures(view, *more)
    plan = reconcile(view, NOW)
    view = applied(view, plan.actions, NOW)
    assert len(entries(view)) == 64
    assert {capture.metadata.name for capture in first} <= set(entries(view))
    events = [a for a in plan.actions if isinstance(a, RecordEvent)]
    assert [event.reason for event in events] == ["TooManyCaptures"]


def test_a_persons_capture_goes_when_its_time_to_live_is_over():
    capture = a_capture(duration="1m", ttlAfterFinished="10m", created=NOW)
    view = a_view([capture], [])
    assert reconcile(view, NOW).wake_at == NOW + 60
    assert reconcile(view, NOW + 61).wake_at == NOW + 660
    gone = reconcile(view, NOW + 660).actions
    assert [type(action) for action in gone] == [DeleteCapture]


def test_a_suspended_capture_keeps_its_files_until_its_window_and_time_to_live_are_over():
    capture = a_capture(suspend=True, duration="1h", ttlAfterFinished="10m", created=NOW)
    for later in (NOW + 1200, NOW + 4199):
        actions = reconcile(a_view([capture]), later).actions
        assert not any(isinstance(action, DeleteCapture) for action in actions)


def test_an_expired_capture_stays_while_a_pod_still_ships_it():
    capture = a_capture(duration="1m", ttlAfterFinished="1s", created=NOW)
    view = settled(a_view([capture], [a_pod()]))

    def deletes(now):
        return [a for a in reconcile(view, now).actions if isinstance(a, DeleteCapture)]

    assert deletes(NOW + 70) == []
    view = settled(view, NOW + 60 + BACKLOG_SECONDS)
    assert len(deletes(NOW + 61 + BACKLOG_SECONDS)) == 1


def test_nothing_to_wait_for_means_never():
    assert reconcile(a_view([], [a_pod()]), NOW).wake_at == NEVER


# --- properties -------------------------------------------------------------------------

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


def test_a_capture_of_calicos_group_is_ordered_without_an_end_and_never_expires():
    capture = a_capture(group=keys.CALICO_GROUP, selector='app == "web"', filters=[{"ports": [53]}])
    pods = [a_pod(labels={"app": "web"}), a_pod("db-1", labels={"app": "db"})]
    written = patches(a_view([capture], pods))
    assert sorted(written) == ["web-1"]
    (entry,) = written["web-1"].captures
    assert (entry.filter, entry.until) == ("(port 53)", FOREVER)
    assert entry.limit.bytes == 0  # a ring
    over = a_capture(group=keys.CALICO_GROUP, created=NOW - 10**8, endTime=at(NOW - 10**7))
    plan = reconcile(a_view([over], [a_pod()]), NOW)
    assert not [action for action in plan.actions if isinstance(action, DeleteCapture)]


def test_an_end_that_is_set_to_the_past_ends_calicos_capture_and_one_in_the_future_schedules_it():
    capture = a_capture(group=keys.CALICO_GROUP)
    view = settled(a_view([capture], [a_pod()]))
    for spec in ({"endTime": at(NOW - 1)}, {"startTime": at(NOW + 60)}):
        changed = with_captures(view, a_capture(group=keys.CALICO_GROUP, **spec))
        (entry,) = patches(changed)["web-1"].captures
        assert entry.until == NOW
    again = settled(changed)
    (entry,) = patches(again, NOW + 61)["web-1"].captures
    assert entry.until == FOREVER


def test_captures_of_one_name_in_both_groups_are_two():
    theirs = a_capture("twin", group=keys.CALICO_GROUP)
    ours = a_capture("dns")
    ours = structs.replace(ours, metadata=structs.replace(ours.metadata, name="twin"))
    written = patches(a_view([theirs, ours], [a_pod()]))
    assert {entry.id for entry in written["web-1"].captures} == {uid_of("twin"), uid_of("dns")}


def test_a_running_capture_beyond_a_new_ceiling_is_ended_and_its_status_names_the_rule():
    view = a_view([a_capture(duration="2h")], [a_pod()])
    view = applied(view, reconcile(view, NOW).actions, NOW)
    ceiling = Ceiling(("tight",), max_seconds=3600)
    tight = replace(
        view,
        ceiling=ceiling,
        captures=tuple(judge(judged.capture, ceiling) for judged in view.captures),
    )
    actions = reconcile(tight, NOW + 10).actions
    (written,) = [action for action in actions if isinstance(action, PatchOrders)]
    assert parse_orders(written.value or "").captures[0].until == NOW + 10
    (update,) = [action for action in actions if isinstance(action, UpdateStatus)]
    said = {item["type"]: item for item in update.status["conditions"]}
    assert update.status["phase"] == "Error"
    assert said["WithinCeiling"]["reason"] == "MaxDuration"
    assert said["Recording"]["reason"] == "BeyondCeiling"


def test_the_newest_of_too_many_captures_waits_for_a_place():
    ceiling = Ceiling(("tight",), max_captures=1)
    old, new = a_capture("old", created=NOW - 90, duration="2m"), a_capture("new")
    view = replace(a_view([new, old], [a_pod()]), ceiling=ceiling)
    (written,) = [a for a in reconcile(view, NOW).actions if isinstance(a, PatchOrders)]
    assert [entry.name for entry in parse_orders(written.value or "").captures] == ["old"]
    view = applied(view, reconcile(view, NOW).actions, NOW)
    later = reconcile(view, NOW + 31)
    (written,) = [action for action in later.actions if isinstance(action, PatchOrders)]
    assert "new" in {entry.name for entry in parse_orders(written.value or "").captures}


def test_the_snap_length_is_forced_in_the_orders():
    ceiling = Ceiling(("tight",), snap=96)
    capture = a_capture(snapLength=4000)
    view = replace(a_view([], [a_pod()]), ceiling=ceiling, captures=(judge(capture, ceiling),))
    (written,) = [a for a in reconcile(view, NOW).actions if isinstance(a, PatchOrders)]
    assert parse_orders(written.value or "").captures[0].snap == 96
