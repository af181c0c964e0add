from dataclasses import replace

import pytest

from controller.actions import Action, CreateCapture, DeleteCapture, RecordEvent, UpdateCapture
from controller.annotations import MAX_POD_NAMES
from controller.reconcile import orders_in, reconcile
from controller.view import Memory, NamespaceView, Refusal
from nightcap.contract import keys
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_namespace,
    a_pod,
    a_view,
    applied,
    at,
)

ON = {keys.CAPTURE: "on"}
OFF = {keys.CAPTURE: "off"}
BAD = {keys.CAPTURE: "on", keys.DURATION: "soon"}
WEB = ("StatefulSet", "web")


def done(view: NamespaceView, now: float = NOW, rounds: int = 3) -> NamespaceView:
    for _ in range(rounds):
        view = applied(view, reconcile(view, now).actions, now)
    return view


def of_kind(view: NamespaceView, kind: type[Action], now: float = NOW) -> list:
    return [action for action in reconcile(view, now).actions if isinstance(action, kind)]


def spec_of(view: NamespaceView, name: str):
    return next(j.capture.spec for j in view.captures if j.capture.metadata.name == name)


def names(view: NamespaceView) -> list[str]:
    return sorted(judged.capture.metadata.name for judged in view.captures)


def with_pods(view: NamespaceView, *pods) -> NamespaceView:
    carried = {pod.metadata.name: pod for pod in view.pods}
    kept = []
    for pod in pods:
        old = carried.get(pod.metadata.name)
        text = old.metadata.annotation(keys.ORDERS) if old else None
        if text is not None:
            pod.metadata.annotations[keys.ORDERS] = text
        kept.append(pod)
    return replace(view, pods=tuple(kept))


def test_on_at_a_bare_pod_creates_a_capture_of_that_pod_with_the_options_as_written():
    pod = a_pod(
        annotations={
            **ON,
            keys.FILTER: "udp port 53",
            keys.DURATION: "90s",
            keys.SNAP_LENGTH: "96",
            keys.MAX_FILE_SIZE: "1Mi",
            keys.ROTATE_EVERY: "5m",
            keys.MAX_FILES: "3",
        }
    )
    (create,) = of_kind(a_view([], [pod]), CreateCapture)
    assert (create.namespace, create.name, create.source) == ("shop", "pod-web-1", "pod")
    assert create.spec == {
        "filter": "udp port 53",
        "duration": "90s",
        "snapLength": 96,
        "rotation": {"maxFileSize": "1Mi", "maxFileAge": "5m", "maxFiles": 3},
        "podNames": ["web-1"],
    }


def test_the_capture_of_a_pod_orders_that_pod_alone():
    view = done(a_view([], [a_pod(annotations=ON), a_pod("web-2")]))
    by_name = {pod.metadata.name: orders_in(pod).captures for pod in view.pods}
    assert [entry.name for entry in by_name["web-1"]] == ["pod-web-1"]
    assert by_name["web-2"] == ()


def test_on_at_a_namespace_creates_one_capture_of_all_its_pods():
    view = a_view([], [a_pod("a"), a_pod("b")], namespace=a_namespace(annotations=ON))
    (create,) = of_kind(view, CreateCapture)
    assert (create.name, create.source, create.spec["podNames"]) == ("namespace", "namespace", [])
    view = done(view)
    assert all(len(orders_in(pod).captures) == 1 for pod in view.pods)


def test_pods_of_one_controller_share_a_capture_that_follows_its_pods():
    view = done(a_view([], [a_pod("web-0", annotations=ON, owner=WEB)]))
    assert names(view) == ["statefulset-web"]
    pods = [a_pod(f"web-{n}", annotations=ON, owner=WEB) for n in (1, 2)]
    (update,) = of_kind(with_pods(view, *pods), UpdateCapture)
    assert update.spec == {"podNames": ["web-1", "web-2"]}


def test_pods_of_one_controller_with_other_options_have_a_capture_of_their_own():
    pods = [
        a_pod("web-0", annotations=ON, owner=WEB),
        a_pod("web-1", annotations={**ON, keys.DURATION: "5m"}, owner=WEB),
    ]
    view = done(a_view([], pods))
    assert len(names(view)) == 2
    assert names(view)[0] == "statefulset-web"


def test_a_pod_without_sidecar_gets_its_capture_all_the_same():
    view = done(a_view([], [a_pod(annotations=ON, injected=False)]))
    assert names(view) == ["pod-web-1"]


@pytest.mark.parametrize("annotations", [OFF, {}, {**OFF, keys.DURATION: "soon"}])
def test_off_or_no_annotation_suspends(annotations):
    view = done(a_view([], [a_pod(annotations=ON)]))
    (update,) = of_kind(with_pods(view, a_pod(annotations=annotations)), UpdateCapture, NOW + 9)
    assert update.spec == {"suspend": True}


def test_one_pod_switched_off_ends_there_while_the_others_go_on():
    pods = [a_pod(f"web-{n}", annotations=ON, owner=WEB) for n in (0, 1)]
    view = done(a_view([], pods))
    view = with_pods(
        view, a_pod("web-0", annotations=OFF, owner=WEB), a_pod("web-1", annotations=ON, owner=WEB)
    )
    view = done(view, NOW + 60)
    ends = {pod.metadata.name: orders_in(pod).captures[0].until for pod in view.pods}
    assert ends == {"web-0": NOW + 60, "web-1": NOW + 3600}
    assert spec_of(view, "statefulset-web").suspend is False


def test_on_again_runs_again_from_now():
    view = done(a_view([], [a_pod(annotations=ON)]))
    view = done(with_pods(view, a_pod(annotations=OFF)), NOW + 60)
    view = done(with_pods(view, a_pod(annotations=ON)), NOW + 120)
    assert names(view) == ["pod-web-1"]
    spec = spec_of(view, "pod-web-1")
    assert (spec.suspend, spec.start_time) == (False, at(NOW + 120))
    assert orders_in(view.pods[0]).captures[0].until == NOW + 120 + 3600


def test_a_finished_one_with_on_still_there_stays_finished_and_stays():
    view = done(a_view([], [a_pod(annotations=ON)]))
    for later in (3601, 7200, 3600 + 86400, 10 * 86400):
        assert of_kind(view, UpdateCapture, NOW + later) == []
        assert of_kind(view, CreateCapture, NOW + later) == []
        assert of_kind(view, DeleteCapture, NOW + later) == []


def test_another_option_does_not_start_a_finished_one_again():
    view = done(a_view([], [a_pod(annotations=ON)]))
    longer = with_pods(view, a_pod(annotations={**ON, keys.DURATION: "9h"}))
    assert of_kind(longer, UpdateCapture, NOW + 4000) == []


def test_a_finished_one_is_started_again_by_off_and_on():
    view = done(a_view([], [a_pod(annotations=ON)]))
    view = done(with_pods(view, a_pod(annotations=OFF)), NOW + 4000)
    view = done(with_pods(view, a_pod(annotations=ON)), NOW + 4100)
    assert orders_in(view.pods[0]).captures[0].until == NOW + 4100 + 3600


def test_the_object_goes_when_its_pods_are_gone_and_its_files_have_expired():
    view = done(a_view([], [a_pod(annotations=ON)]))
    view = done(replace(view, pods=()), NOW + 100)
    assert names(view) == ["pod-web-1"]
    assert of_kind(view, DeleteCapture, NOW + 3600 + 86399) == []
    assert len(of_kind(view, DeleteCapture, NOW + 3600 + 86400)) == 1


def test_changing_an_option_changes_the_running_capture():
    view = done(a_view([], [a_pod(annotations=ON)]))
    changed = with_pods(view, a_pod(annotations={**ON, keys.FILTER: "icmp"}))
    (update,) = of_kind(changed, UpdateCapture, NOW + 1)
    assert update.spec == {"filter": "icmp"}
    changed = done(changed, NOW + 1)
    back = with_pods(changed, a_pod(annotations=ON))
    (update,) = of_kind(back, UpdateCapture, NOW + 2)
    assert update.spec == {"filter": ""}


def test_a_bad_value_without_a_capture_makes_a_suspended_one_and_an_event():
    view = a_view([], [a_pod(annotations=BAD)])
    (create,) = of_kind(view, CreateCapture)
    assert create.spec["suspend"] is True
    (event,) = of_kind(view, RecordEvent)
    assert (event.regarding.kind, event.regarding.name) == ("Pod", "web-1")
    assert (event.type, event.reason) == ("Warning", "BadAnnotation")
    assert "nightcap.dev/duration" in event.message
    assert "'soon'" in event.message
    view = done(view)
    assert orders_in(view.pods[0]).captures == ()
    mended = done(with_pods(view, a_pod(annotations=ON)), NOW + 60)
    assert orders_in(mended.pods[0]).captures[0].until == NOW + 60 + 3600


@pytest.mark.parametrize("value", ["ON", "true", "", "off "])
def test_an_unknown_value_of_capture_is_an_event_that_quotes_it(value):
    (event,) = of_kind(a_view([], [a_pod(annotations={keys.CAPTURE: value})]), RecordEvent)
    assert repr(value) in event.message
    assert "must be on or off" in event.message


@pytest.mark.parametrize("owner", [None, WEB], ids=["bare pod", "pod of a controller"])
def test_a_bad_value_never_disturbs_a_capture_that_runs(owner):
    """Options are part of a shared capture's name: a bad one must not leave the old behind."""
    good = {**ON, keys.DURATION: "2h"}
    view = done(a_view([], [a_pod(annotations=good, owner=owner)]))
    (name,) = names(view)
    before = spec_of(view, name)
    view = with_pods(view, a_pod(annotations={**good, keys.FILTER: "host example"}, owner=owner))
    assert [event.reason for event in of_kind(view, RecordEvent, NOW + 9)] == ["BadAnnotation"]
    view = done(view, NOW + 9)
    assert names(view) == [name]
    assert spec_of(view, name) == before
    assert orders_in(view.pods[0]).captures[0].until == NOW + 7200
    conditions = (view.captures[0].capture.status or {})["conditions"]
    assert "'example'" in next(c for c in conditions if c["type"] == "AnnotationsValid")["message"]


def test_a_bad_value_at_the_namespace_is_an_event_there_and_disturbs_nothing():
    view = done(a_view([], [a_pod()], namespace=a_namespace(annotations=ON)))
    view = replace(view, namespace=a_namespace(annotations=BAD))
    (event,) = of_kind(view, RecordEvent, NOW + 5)
    assert (event.regarding.kind, event.regarding.name) == ("Namespace", "shop")
    assert of_kind(view, UpdateCapture, NOW + 5) == []


def test_events_are_recorded_once():
    view = done(a_view([], [a_pod(annotations=BAD)]))
    assert of_kind(view, RecordEvent, NOW + 1000) == []


def test_a_name_that_a_person_took_is_an_event_and_the_persons_capture_stays_as_it_is():
    persons = a_capture("pod-web-1", filter="tcp", suspend=True)
    view = a_view([persons], [a_pod(annotations=ON)])
    (event,) = of_kind(view, RecordEvent)
    assert (event.type, event.reason) == ("Warning", "NameTaken")
    assert "pod-web-1" in event.message
    view = done(view)
    assert spec_of(view, "pod-web-1").suspend is True
    assert of_kind(view, DeleteCapture, NOW + 3600 + 86400) != []  # its own time to live holds


def test_a_label_of_a_source_that_is_unknown_counts_as_a_persons():
    view = a_view([a_capture("x", source="robot")])
    assert of_kind(view, UpdateCapture) == []


def test_a_refusal_by_the_api_server_is_told_and_not_tried_again_until_its_time():
    view = a_view([], [a_pod(annotations={**ON, keys.FILTER: "port 99999"})])
    (create,) = of_kind(view, CreateCapture)
    refusal = Refusal(create.fingerprint, "illegal port number 99999 > 65535", NOW + 300)
    view.memory.refusals["shop", "pod-web-1"] = refusal
    (event,) = of_kind(view, RecordEvent)
    assert event.reason == "CaptureRefused"
    assert "99999 > 65535" in event.message
    assert of_kind(view, CreateCapture, NOW + 299) == []
    assert reconcile(view, NOW).wake_at == NOW + 300
    assert len(of_kind(view, CreateCapture, NOW + 300)) == 1


def test_a_refusal_holds_for_what_was_asked_alone():
    view = a_view([], [a_pod(annotations={**ON, keys.FILTER: "port 99999"})])
    (create,) = of_kind(view, CreateCapture)
    view.memory.refusals["shop", "pod-web-1"] = Refusal(create.fingerprint, "no", NOW + 300)
    mended = with_pods(view, a_pod(annotations={**ON, keys.FILTER: "port 80"}))
    assert len(of_kind(mended, CreateCapture)) == 1


def test_a_refused_change_does_not_disturb_the_running_capture():
    view = done(a_view([], [a_pod(annotations=ON)]))
    changed = with_pods(view, a_pod(annotations={**ON, keys.FILTER: "port 99999"}))
    (update,) = of_kind(changed, UpdateCapture)
    changed.memory.refusals["shop", "pod-web-1"] = Refusal(update.fingerprint, "no", NOW + 300)
    assert of_kind(changed, UpdateCapture) == []
    assert orders_in(changed.pods[0]).captures[0].until == NOW + 3600


def test_a_pod_that_is_over_asks_for_nothing():
    assert of_kind(a_view([], [a_pod(annotations=ON, phase="Succeeded")]), CreateCapture) == []


def test_nothing_is_made_in_a_namespace_that_is_going():
    leaving = a_namespace(annotations=ON, deleted=NOW)
    assert of_kind(a_view([], [a_pod(annotations=ON)], namespace=leaving), CreateCapture) == []


def test_a_capture_that_is_being_deleted_is_left_alone():
    leaving = a_capture("pod-web-1", source="pod", podNames=["web-1"], deleted=NOW, suspend=True)
    assert of_kind(a_view([leaving], [a_pod(annotations=ON)]), UpdateCapture) == []


def test_the_list_of_pods_is_bounded_and_pods_beyond_it_are_ordered_all_the_same():
    pods = [a_pod(f"web-{n:04}", annotations=ON, owner=WEB) for n in range(MAX_POD_NAMES + 5)]
    view = done(a_view([], pods, memory=Memory()))
    assert len(spec_of(view, "statefulset-web").pod_names) == MAX_POD_NAMES
    assert all(len(orders_in(pod).captures) == 1 for pod in view.pods)


def test_pod_and_namespace_may_both_be_annotated():
    view = done(a_view([], [a_pod(annotations=ON)], namespace=a_namespace(annotations=ON)))
    assert names(view) == ["namespace", "pod-web-1"]
    assert len(orders_in(view.pods[0]).captures) == 2


def test_a_capture_of_calicos_group_takes_no_name_and_is_no_annotations():
    theirs = a_capture("namespace", group=keys.CALICO_GROUP, source=keys.SOURCE_NAMESPACE)
    view = a_view([theirs], [a_pod()], namespace=a_namespace(annotations=ON))
    (made,) = of_kind(view, CreateCapture)
    assert made.name == "namespace"
    assert not of_kind(view, RecordEvent)
    off = a_view([theirs], [a_pod()])
    assert not of_kind(off, UpdateCapture)
