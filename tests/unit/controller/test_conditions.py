from dataclasses import replace

import pytest
from msgspec import structs

from controller.reconcile import reconcile
from controller.tally import GRACE_SECONDS, SILENT_SECONDS
from controller.view import RetrievalView
from nightcap.contract import keys
from nightcap.contract.objects import ContainerStatus, PodOS
from nightcap.contract.reports import Gap, Reason, State
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_namespace,
    a_pod,
    a_report,
    a_view,
    applied,
    at,
)
from tests.unit.controller.statuses import (
    CAPTURING,
    FAILED,
    FULL,
    LOOPING,
    condition,
    ordered_view,
    outcome,
    status_of,
    writes,
)


def windows_pod():
    pod = a_pod("w", injected=False)
    return structs.replace(pod, spec=structs.replace(pod.spec, os=PodOS("windows")))


@pytest.mark.parametrize(
    ("pod", "namespace", "reason", "says"),
    [
        pytest.param(
            a_pod(injected=False),
            a_namespace(),
            "PodsWithoutSidecar",
            "restart them",
            id="older than opt-in",
        ),
        pytest.param(
            a_pod(injected=False),
            a_namespace(enabled=False),
            "PodsWithoutSidecar",
            "not opted in",
            id="not opted in",
        ),
        pytest.param(
            a_pod(injected=False, labels={keys.INJECT: "disabled"}),
            a_namespace(),
            "PodsLeftOut",
            "opted out",
            id="opted out",
        ),
        pytest.param(
            a_pod(injected=False, host_network=True),
            a_namespace(),
            "PodsLeftOut",
            "hostNetwork",
            id="host",
        ),
        pytest.param(windows_pod(), a_namespace(), "PodsLeftOut", "Windows", id="windows"),
        pytest.param(
            a_pod(injected=False, annotations={"kubernetes.io/config.mirror": "x"}),
            a_namespace(),
            "PodsLeftOut",
            "static pods",
            id="mirror",
        ),
        pytest.param(
            a_pod(injected=False),
            a_namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}),
            "PodsWithoutSidecar",
            "restricted",
            id="restricted",
        ),
    ],
)
def test_a_pod_without_sidecar_is_named_with_the_reason(pod, namespace, reason, says):
    view = a_view([a_capture()], [pod, a_pod("fine")], namespace=namespace)
    found = condition(status_of(view), "PodsCovered")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert f"1 of 2 pods have no sidecar; {pod.metadata.name}: " in found["message"]
    assert says in found["message"]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], ("Unknown", "NoMatchingPods")),
        ([a_pod()], ("True", "AllInjected")),
        ([a_pod(), a_pod("b", injected=False)], ("False", "PodsWithoutSidecar")),
        ([a_pod(), a_pod("b", injected=False, host_network=True)], ("False", "PodsLeftOut")),
        (
            [a_pod(injected=False), a_pod("b", injected=False, host_network=True)],
            ("False", "PodsWithoutSidecar"),
        ),
    ],
    ids=["none", "all", "some", "meant so", "meant so and not"],
)
def test_pods_covered(pods, expected):
    assert outcome(status_of(a_view([a_capture()], pods)), "PodsCovered") == expected


def test_a_pod_is_not_silent_before_it_had_time_to_speak():
    view = ordered_view()
    assert status_of(view, NOW + GRACE_SECONDS - 1)["pods"]["notReporting"] == 0
    assert reconcile(view, NOW + 10).wake_at <= NOW + GRACE_SECONDS
    status = status_of(view, NOW + GRACE_SECONDS)
    assert status["pods"]["notReporting"] == 1
    found = condition(status, "Reporting")
    assert (found["status"], found["reason"]) == ("False", "PodsNotReporting")
    assert "web-1" in found["message"]
    assert "network policy" in found["message"]


def test_a_store_without_room_is_said_while_its_pods_wait_for_it():
    no_room = "the store is full: No space left on device"
    view = ordered_view(replace(CAPTURING, refused=no_room))
    found = condition(status_of(view), "Storing")
    assert (found["status"], found["reason"]) == ("False", "StoreFull")
    assert f"web-1: {no_room}; these pods go on" in found["message"]
    kinds = {each["type"] for each in status_of(ordered_view(CAPTURING))["conditions"]}
    assert "Storing" not in kinds
    gone = a_view([a_capture()], [], [replace(CAPTURING, refused=no_room)])
    assert "Storing" not in {each["type"] for each in status_of(gone)["conditions"]}


def test_a_pod_that_falls_silent_is_named_after_two_minutes():
    view = ordered_view(CAPTURING)
    silent_at = CAPTURING.received_at + SILENT_SECONDS
    assert outcome(status_of(view, silent_at - 1), "Reporting") == ("True", "PodsReport")
    assert outcome(status_of(view, silent_at), "Reporting") == ("False", "PodsNotReporting")


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(ordered_view(FULL), id="has finished"),
        pytest.param(ordered_view(FAILED), id="has failed"),
        pytest.param(ordered_view(pod=a_pod(phase="Pending")), id="has not started"),
        pytest.param(ordered_view(pod=a_pod(injected=False)), id="has no sidecar"),
    ],
)
def test_a_pod_that_has_nothing_to_say_is_not_called_silent(view):
    assert status_of(view, NOW + 1000)["pods"]["notReporting"] == 0


def test_a_pod_that_has_not_got_its_orders_yet_is_not_called_silent():
    (update,) = writes(a_view([a_capture(created=NOW - 1000)], [a_pod()]), NOW)
    assert update.status["pods"]["notReporting"] == 0


def test_a_sidecar_that_does_not_start_is_named_with_the_kubelets_reason():
    pod = a_pod()
    waits = (ContainerStatus("nightcap", state={"waiting": {"reason": "CrashLoopBackOff"}}),)
    pod = structs.replace(pod, status=structs.replace(pod.status, init_containers=waits))
    message = condition(status_of(ordered_view(pod=pod), NOW + 100), "Reporting")["message"]
    assert "web-1 (its sidecar waits: CrashLoopBackOff)" in message


def test_collectors_that_do_not_answer_make_the_status_say_so_and_keep_the_numbers():
    view = ordered_view(CAPTURING)
    before = status_of(view)
    view = applied(view, reconcile(view, NOW).actions, NOW)
    away = replace(view, reports={}, retrieval=RetrievalView(unreachable=("10.0.0.7",)))
    status = status_of(away, NOW + 1000)
    assert outcome(status, "Reporting") == ("Unknown", "CollectorUnreachable")
    assert "10.0.0.7" in condition(status, "Reporting")["message"]
    assert status["pods"]["notReporting"] == 0
    assert (status["packets"], status["files"]) == (before["packets"], before["files"])


def test_no_collector_at_all_is_said():
    view = replace(ordered_view(), retrieval=RetrievalView(known=False))
    assert outcome(status_of(view, NOW + 1000), "Reporting") == ("Unknown", "NoCollector")


def test_failed_pods_are_named_with_what_they_said():
    reports = [
        a_report(pod="a", state=State.FAILED, reason=Reason.NO_PRIVILEGE, message="no NET_RAW"),
        a_report(pod="b", state=State.FAILED, reason=Reason.NO_PRIVILEGE, message="no NET_RAW"),
    ]
    status = status_of(a_view([a_capture()], [a_pod("a"), a_pod("b"), a_pod("c")], reports))
    found = condition(status, "Recording")
    assert (found["status"], found["reason"]) == ("False", "PodsFailed")
    assert found["message"] == "2 pods failed; a, b: no-privilege (no NET_RAW)"


def test_pods_that_record_with_trouble_are_named_with_what_they_said():
    """A loop was a reason in a report that nobody saw: the condition said that all was well."""
    reports = [
        a_report(pod="a", reason=Reason.LOOP, message="our own upload"),
        a_report(pod="b", reason=Reason.CAPTURE_ERROR, message="net1: no memory"),
        a_report(pod="c"),
    ]
    status = status_of(a_view([a_capture()], [a_pod("a"), a_pod("b"), a_pod("c")], reports))
    found = condition(status, "Recording")
    assert (found["status"], found["reason"]) == ("True", "PodsInTrouble")
    assert found["message"] == (
        "2 pods record with trouble; b: capture-error (net1: no memory); a: loop (our own upload)"
    )
    assert status["phase"] == "Capturing"


@pytest.mark.parametrize(
    ("spec", "reports", "expected"),
    [
        pytest.param({"suspend": True}, [], ("False", "Suspended"), id="suspended"),
        pytest.param({"endTime": at(NOW)}, [], ("False", "TimeOver"), id="over"),
        pytest.param({"startTime": at(NOW + 9)}, [], ("False", "Scheduled"), id="scheduled"),
        pytest.param({}, [CAPTURING], ("True", "Capturing"), id="captures"),
        pytest.param({}, [LOOPING], ("True", "PodsInTrouble"), id="loops"),
        pytest.param({"suspend": True}, [LOOPING], ("False", "Suspended"), id="looped"),
        pytest.param({}, [FULL], ("False", "LimitReached"), id="full"),
        pytest.param({}, [], ("Unknown", "Ordered"), id="no answer yet"),
        pytest.param({"duration": "x"}, [], ("False", "BadSpec"), id="bad spec"),
    ],
)
def test_recording_says_why_not(spec, reports, expected):
    assert outcome(status_of(a_view([a_capture(**spec)], [a_pod()], reports)), "Recording") == (
        expected
    )


def test_every_fault_of_a_bad_spec_is_quoted():
    status = status_of(a_view([a_capture(filter="host example", snapLength=-3)]))
    found = condition(status, "Valid")
    assert (found["status"], found["reason"]) == ("False", "BadSpec")
    assert "'example'" in found["message"]
    assert "-3" in found["message"]


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        (0.0, ("True", "NoSkew")),
        (0.9, ("True", "NoSkew")),
        (1.5, ("False", "ClockSkew")),
        (-5.0, ("True", "NoSkew")),  # a report that was retried
        (-11.0, ("False", "ClockSkew")),
    ],
)
def test_a_nodes_clock_that_is_wrong_is_a_condition(skew, expected):
    report = a_report(sent=NOW + skew, received=NOW)
    status = status_of(a_view([a_capture()], [a_pod()], [report]))
    assert outcome(status, "ClocksAgree") == expected
    assert ("node-a" in condition(status, "ClocksAgree")["message"]) == (expected[0] == "False")


def test_complete_only_when_every_pod_has_shipped():
    view = ordered_view(CAPTURING)
    assert outcome(status_of(view), "Complete") == ("False", "NotEnded")
    ended = replace(view, captures=a_view([a_capture(suspend=True)]).captures)
    assert outcome(status_of(ended), "Complete") == ("False", "Shipping")
    shipped = a_report(state=State.FINISHED, reason=Reason.TIME, shipped=True, sent=NOW + 1)
    done = replace(ended, reports=a_view(reports=[shipped]).reports)
    done = applied(done, reconcile(done, NOW + 2).actions, NOW + 2)
    done = applied(done, reconcile(done, NOW + 3).actions, NOW + 3)
    assert outcome(status_of(done, NOW + 9), "Complete") == ("True", "AllShipped")


def test_what_was_lost_is_said():
    reports = [a_report(backlog=700, lost=30)]
    status = status_of(a_view([a_capture(suspend=True)], [], reports))
    found = condition(status, "Complete")
    assert (found["status"], found["reason"]) == ("False", "BacklogLost")
    assert "700 bytes" in found["message"]
    assert "30 bytes" in found["message"]


def test_which_segments_were_lost_is_said_of_each_pod():
    gaps = (Gap("eth0", 0, 7, 2048, 20), Gap("net1", 3, 3, 0, 10))
    reports = [a_report(lost=30, gaps=gaps)]
    found = condition(status_of(a_view([a_capture(suspend=True)], [], reports)), "Complete")
    assert found["message"].endswith(
        "30 bytes were dropped in pods for want of room: "
        "segments web-1 eth0 0-7 behind byte 2048, web-1 net1 3"
    )


def test_an_annotation_captures_bad_annotation_is_a_condition_of_its_own():
    pod = a_pod(annotations={keys.CAPTURE: "on", keys.DURATION: "forever"})
    status = status_of(a_view([], [pod]), capture="pod-web-1")
    found = condition(status, "AnnotationsValid")
    assert (found["status"], found["reason"]) == ("False", "BadAnnotation")
    assert "nightcap.dev/duration" in found["message"]
    assert "'forever'" in found["message"]
    assert status["phase"] == "Error"
    assert outcome(status, "Valid") == ("True", "Accepted")


def test_a_persons_capture_has_no_condition_of_annotations():
    status = status_of(a_view([a_capture()]))
    assert "AnnotationsValid" not in {item["type"] for item in status["conditions"]}


def test_an_annotations_fault_is_not_told_of_calicos_capture_of_that_name():
    namespace = a_namespace(annotations={keys.CAPTURE: "on", keys.DURATION: "x"})
    view = a_view([a_capture("namespace", group=keys.CALICO_GROUP)], [], namespace=namespace)
    (update,) = writes(view, NOW)
    assert all(item["type"] != "AnnotationsValid" for item in update.status["conditions"])


def test_while_injection_is_off_every_capture_says_so():
    view = a_view([a_capture()], [a_pod()])
    assert "Injecting" not in {item["type"] for item in status_of(view)["conditions"]}
    off = replace(view, injection_off="5 pods wait")
    assert outcome(status_of(off), "Injecting") == ("False", "InjectionOff")
    assert "5 pods wait" in condition(status_of(off), "Injecting")["message"]
