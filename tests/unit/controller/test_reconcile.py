from dataclasses import replace

import pytest
from msgspec import structs

from controller.actions import DeleteCapture, PatchOrders, RecordEvent, UpdateStatus
from controller.reconcile import BACKLOG_SECONDS, reconcile
from controller.view import NEVER, judge
from nightcap.contract import keys
from nightcap.contract.captures import FOREVER
from nightcap.contract.ceilings import Ceiling
from nightcap.contract.orders import CaptureOrder, Orders, dump_orders, parse_orders
from tests.unit.controller.builders import (
    COLLECTORS,
    NOW,
    a_capture,
    a_pod,
    a_view,
    applied,
    at,
    uid_of,
    with_orders,
)
from tests.unit.controller.orders import entries, patches, running, settled, with_captures


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


def test_nothing_to_wait_for_means_never():
    assert reconcile(a_view([], [a_pod()]), NOW).wake_at == NEVER


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
