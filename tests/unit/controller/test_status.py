import json
from dataclasses import replace

import pytest

from controller.reconcile import reconcile
from controller.status import WRITE_EVERY_SECONDS
from controller.tally import GRACE_SECONDS
from controller.view import Memory, RetrievalView
from nightcap.contract import keys
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
from tests.unit.controller.statuses import (
    CAPTURING,
    FAILED,
    FULL,
    WAITING,
    ordered_view,
    status_of,
    writes,
)


@pytest.mark.parametrize(
    ("spec", "pods", "reports", "phase"),
    [
        pytest.param({"startTime": at(NOW + 60)}, [a_pod()], [], "Scheduled", id="scheduled"),
        pytest.param({}, [], [], "WaitingForTraffic", id="no pods yet"),
        pytest.param({}, [a_pod()], [], "WaitingForTraffic", id="ordered"),
        pytest.param({}, [a_pod()], [WAITING], "WaitingForTraffic", id="open"),
        pytest.param({}, [a_pod()], [CAPTURING], "Capturing", id="first packet"),
        pytest.param({}, [a_pod(), a_pod("b")], [CAPTURING], "Capturing", id="one of two"),
        pytest.param({}, [a_pod()], [FULL], "Finished", id="all full"),
        pytest.param({}, [a_pod(), a_pod("b")], [FULL], "WaitingForTraffic", id="one is full"),
        pytest.param({}, [a_pod()], [FAILED], "Error", id="all failed"),
        pytest.param({}, [a_pod(injected=False)], [], "WaitingForTraffic", id="no sidecar"),
        pytest.param({"suspend": True}, [a_pod()], [CAPTURING], "Finished", id="suspended"),
        pytest.param({"endTime": at(NOW - 1)}, [a_pod()], [CAPTURING], "Finished", id="over"),
        pytest.param({"filter": "host x"}, [a_pod()], [], "Error", id="bad spec"),
        pytest.param({"snapLength": "x"}, [a_pod()], [], "Error", id="unreadable spec"),
    ],
)
def test_the_phase(spec, pods, reports, phase):
    assert status_of(a_view([a_capture(**spec)], pods, reports))["phase"] == phase


def test_pods_are_counted_by_what_can_be_said_of_them():
    pods = [
        a_pod("a"),
        a_pod("b"),
        a_pod("c"),
        a_pod("d"),
        a_pod("bare", injected=False),
        a_pod("over", phase="Succeeded"),
        a_pod("leaving", deleted=NOW),
    ]
    reports = [
        a_report(pod="a"),
        a_report(pod="b", state=State.WAITING),
        a_report(pod="c", state=State.FAILED, reason=Reason.CAPTURE_ERROR),
    ]
    view = a_view([a_capture()], pods, reports)
    view = applied(view, reconcile(view, NOW).actions, NOW)
    status = status_of(view, NOW + GRACE_SECONDS)
    assert status["pods"] == {
        "matching": 5,
        "capturing": 2,
        "withoutSidecar": 1,
        "notReporting": 1,
        "failed": 1,
    }


def test_numbers_are_sums_of_reports_also_of_pods_that_are_gone():
    reports = [
        a_report(pod="a", packets=10, size=1000, dropped=1),
        a_report(pod="gone", packets=5, size=500, dropped=2),
    ]
    status = status_of(a_view([a_capture()], [a_pod("a")], reports))
    assert (status["packets"], status["size"], status["dropped"]) == (15, 1500, 3)


def test_no_status_is_written_before_the_collectors_were_asked():
    """After a restart of the controller the numbers would fall to 0 for a moment."""
    view = a_view([a_capture()], [a_pod()], retrieval=RetrievalView(asked=False))
    assert writes(view, NOW) == []


def test_a_transition_is_a_change_of_status_alone():
    view = ordered_view(CAPTURING)
    view = applied(view, reconcile(view, NOW + 9).actions, NOW + 9)
    first = view.captures[0].capture.status or {}
    more = replace(view, reports=a_view(reports=[a_report(seq=2, packets=99)]).reports)
    more = applied(more, reconcile(more, NOW + 30).actions, NOW + 30)
    second = more.captures[0].capture.status or {}
    assert second["packets"] == 99
    times = {item["type"]: item["lastTransitionTime"] for item in first["conditions"]}
    assert {item["type"]: item["lastTransitionTime"] for item in second["conditions"]} == times
    ended = replace(
        more, captures=a_view([a_capture(suspend=True, status=second, generation=2)]).captures
    )
    third = applied(ended, reconcile(ended, NOW + 60).actions, NOW + 60).captures[0].capture.status
    changed = {
        item["type"]
        for item in (third or {})["conditions"]
        if item["lastTransitionTime"] != times[item["type"]]
    }
    assert changed == {"Recording", "Reporting"}
    assert {item["observedGeneration"] for item in (third or {})["conditions"]} == {2}


def test_status_is_written_at_once_then_at_most_every_five_seconds_and_not_unchanged():
    view = ordered_view(CAPTURING)
    assert view.captures[0].capture.status is not None
    news = replace(view, reports=a_view(reports=[a_report(seq=2, packets=50)]).reports)
    assert writes(news, NOW + 1) == []
    assert reconcile(news, NOW + 1).wake_at == NOW + WRITE_EVERY_SECONDS
    assert len(writes(news, NOW + WRITE_EVERY_SECONDS)) == 1
    news = applied(news, reconcile(news, NOW + 5).actions, NOW + 5)
    assert writes(news, NOW + 11) == []


def test_a_clock_that_was_set_back_does_not_hold_the_status():
    memory = Memory(status_written_at={uid_of("dns"): NOW + 7200})
    assert len(writes(a_view([a_capture()], memory=memory), NOW)) == 1


def test_the_status_of_ten_thousand_pods_stays_under_50_kilobytes():
    pods = [a_pod(f"{'x' * 180}-{number}", injected=number % 3 > 0) for number in range(10_000)]
    reports = [
        a_report(
            pod=pod.metadata.name,
            node=f"ip-10-0-{number % 5000}.eu-central-1.compute.internal",
            state=State.FAILED if number % 2 else State.CAPTURING,
            message=f"interface {number}: " + "z" * 1500,
            sent=NOW + 100,
            received=NOW,
            files=tuple(f"{pod.metadata.name}_eth0-{17 * 10**14 + n}.pcap" for n in range(10)),
        )
        for number, pod in enumerate(pods)
    ]
    view = a_view([a_capture()], pods, reports)
    update = writes(view, NOW)[0]
    assert len(json.dumps(update.status)) < 50_000
    assert update.status["pods"]["matching"] == 10_000


def test_a_capture_of_calicos_group_has_the_same_status_without_an_end():
    capture = a_capture(group=keys.CALICO_GROUP, selector='app == "web"')
    pods = [a_pod(labels={"app": "web"}), a_pod("other")]
    view = a_view([capture], pods, [CAPTURING])
    (update,) = writes(view, NOW)
    assert update.capture.api_version == "projectcalico.org/v3"
    status = status_of(view)
    assert status["phase"] == "Capturing"
    assert status["pods"]["matching"] == 1
    assert "endTime" not in status
