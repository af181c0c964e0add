"""How captures end in the orders of pods, and when they go."""

from dataclasses import replace

import pytest

from controller.actions import DeleteCapture
from controller.reconcile import BACKLOG_SECONDS, is_released, reconcile
from nightcap.contract import keys
from nightcap.contract.reports import Reason, State
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_pod,
    a_report,
    a_view,
    at,
    with_orders,
)
from tests.unit.controller.orders import entries, patches, running, settled, with_captures


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
