"""Events for people follow from what was written, and stay few however many pods there are."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from controller.actions import DeleteCapture, PatchOrders, UpdateStatus, capture_ref, pod_ref
from controller.reconcile import reconcile
from controller.telling import MAX_PODS_TOLD, told_by
from controller.view import Memory, NamespaceView, PodReport
from nightcap.contract.orders import CaptureOrder
from nightcap.contract.reports import Reason, State
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_pod,
    a_report,
    a_view,
    applied,
    at,
    uid_of,
)

REF = capture_ref(a_capture("dns"))
Told = list[tuple[str, str, str]]


class Town:
    """A namespace in which what is decided is done; and what people are told of it."""

    def __init__(self, captures: list[Any], pods: list[Any]) -> None:
        self.view: NamespaceView = a_view(captures, pods)
        self.memory = Memory()

    def report(self, *reports: PodReport) -> None:
        by_pod = {report.pod_uid: report for report in reports}
        self.view = replace(self.view, reports={uid_of("dns"): by_pod})

    def put(self, capture: Any) -> None:
        """Change a capture's spec; its status stays."""
        changed = structs.replace(capture, status=self.view.captures[0].capture.status)
        self.view = replace(self.view, captures=a_view([changed]).captures)

    def look(self, now: float) -> Told:
        """Decide and do until there is nothing left; (type, reason, object) of each Event."""
        told: Told = []
        while actions := reconcile(self.view, now).actions:
            for action in actions:
                told += [
                    (event.type, event.reason, event.regarding.name)
                    for event in told_by(action, self.memory)
                ]
            self.view = applied(self.view, actions, now)
            self.view.memory.status_written_at.clear()
        return told


def finished(reason: Reason, seq: int = 2) -> PodReport:
    return a_report(
        "dns", state=State.FINISHED, reason=reason, shipped=True, sent=NOW + 70, seq=seq
    )


def test_a_capture_and_its_pod_say_when_it_starts_and_when_it_is_over():
    town = Town([a_capture("dns", duration="120s")], [a_pod("web-1")])
    assert town.look(NOW) == [("Normal", "CaptureStarted", "web-1")]
    town.report(a_report("dns"))
    assert town.look(NOW + 1) == [("Normal", "Started", "dns")]
    assert town.look(NOW + 2) == []
    town.report(finished(Reason.TIME))
    assert town.look(NOW + 70) == [
        ("Normal", "CaptureEnded", "web-1"),
        ("Normal", "Finished", "dns"),
        ("Normal", "Complete", "dns"),
    ]
    assert town.look(NOW + 71) == []


def test_suspending_and_resuming_are_said():
    town = Town([a_capture("dns")], [a_pod("web-1")])
    town.report(a_report("dns"))
    town.look(NOW)
    town.put(a_capture("dns", suspend=True, generation=2))
    assert town.look(NOW + 10) == [("Normal", "Suspended", "dns")]
    town.put(a_capture("dns", generation=3))
    assert town.look(NOW + 20) == [
        ("Normal", "CaptureStarted", "web-1"),
        ("Normal", "Started", "dns"),
    ]


def test_a_capture_that_waits_for_its_time_says_so():
    town = Town([a_capture("dns", startTime=at(NOW + 100))], [a_pod("web-1")])
    assert town.look(NOW) == [("Normal", "Scheduled", "dns")]


def test_a_limit_that_is_reached_finishes_a_capture():
    town = Town([a_capture("dns")], [a_pod("web-1")])
    town.report(finished(Reason.SIZE))
    assert ("Normal", "Finished", "dns") in town.look(NOW)


@pytest.mark.parametrize(
    ("capture", "pods", "reports", "reason"),
    [
        (a_capture("dns", duration="soon"), [a_pod()], [], "BadSpec"),
        (a_capture("dns"), [a_pod(injected=False)], [], "PodsWithoutSidecar"),
        (a_capture("dns"), [a_pod()], [a_report(state=State.FAILED)], "PodsFailed"),
        (a_capture("dns"), [a_pod()], [a_report(reason=Reason.LOOP)], "PodsInTrouble"),
        (
            a_capture("dns", suspend=True),
            [a_pod()],
            [a_report(state=State.FINISHED, shipped=True, lost=7)],
            "BacklogLost",
        ),
    ],
    ids=["bad spec", "no sidecar", "failed", "loop", "lost"],
)
def test_what_somebody_should_look_at_is_a_warning_and_said_once(capture, pods, reports, reason):
    town = Town([capture], pods)
    town.report(*reports)
    assert ("Warning", reason, "dns") in town.look(NOW)
    assert town.look(NOW + 10) == []


def test_pods_that_are_left_out_on_purpose_are_no_warning_and_hide_none():
    town = Town([a_capture("dns")], [a_pod("web-1", injected=False, host_network=True)])
    said = [event for event in town.look(NOW) if event[1].startswith("Pods")]
    assert said == [("Normal", "PodsLeftOut", "dns")]
    assert town.look(NOW + 10) == []
    town.view = replace(town.view, pods=(*town.view.pods, a_pod("web-2", injected=False)))
    said = [event for event in town.look(NOW + 20) if event[1].startswith("Pods")]
    assert said == [("Warning", "PodsWithoutSidecar", "dns")]


def test_an_expired_capture_leaves_word():
    town = Town([a_capture("dns", duration="60s", ttlAfterFinished="10s")], [])
    (event,) = told_by(DeleteCapture(REF), town.memory)
    assert (event.type, event.reason, event.regarding) == ("Normal", "Expired", REF)


def test_pods_beyond_the_first_are_not_told_so_that_events_stay_few():
    town = Town([a_capture("dns")], [a_pod(f"web-{number}") for number in range(300)])
    told = town.look(NOW)
    assert [reason for _, reason, _ in told].count("CaptureStarted") == MAX_PODS_TOLD
    first = {name for _, reason, name in told if reason == "CaptureStarted"}
    town.view = replace(town.view, captures=())
    ended = [name for _, reason, name in town.look(NOW + 5) if reason == "CaptureEnded"]
    assert sorted(ended) == sorted(first)


def test_an_events_sentence_has_the_captures_name_and_its_end():
    entry = CaptureOrder("u", "shop", "dns", int(NOW + 60))
    patch = PatchOrders(pod_ref(a_pod().metadata), "{}", begun=(entry,), over=(entry,))
    began, over = told_by(patch, Memory())
    assert began.message == "capture dns records packets of this pod until 2027-01-15T08:01:00Z"
    assert over.message == "capture dns is over in this pod"


@pytest.mark.parametrize("old", [{"conditions": "none"}, {"conditions": [7, {}]}, {}, None])
def test_a_status_that_somebody_bent_is_survived(old):
    condition = {"type": "Recording", "status": "True", "reason": "Capturing", "message": "m"}
    (event,) = told_by(UpdateStatus(REF, {"conditions": [condition]}, old), Memory())
    assert event.reason == "Started"
