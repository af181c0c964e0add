from typing import Any

import msgspec

from nightcap.kube import paths
from nightcap.kube.events import EventRecorder, ObjectRef
from tests.unit.kube.small_api import SmallApi

POD = ObjectRef("v1", "Pod", "web-1", "shop", "pod-uid", "42")


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.25

    def __call__(self) -> float:
        return self.now


def recorder(api: SmallApi, **options: Any) -> tuple[EventRecorder, Clock]:
    api.answers["POST", paths.events("shop")] = [(201, {})]
    clock = Clock()
    return EventRecorder(api.client(), "controller", clock=clock, **options), clock


def tell(events: EventRecorder, message: str = "filter has a syntax error") -> None:
    events.record(POD, type="Warning", reason="BadFilter", message=message, action="Compile")


def test_event_is_written_in_the_objects_namespace(api: SmallApi) -> None:
    events, _ = recorder(api)
    tell(events)
    assert events.flush()
    written = msgspec.json.decode(api.requests[0][3])
    name = written.pop("metadata").pop("name")
    assert name.startswith("web-1.")
    assert written.pop("reportingInstance").startswith("controller-")
    assert written == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2026-11-18T11:06:40.250000Z",
        "reportingController": "nightcap.dev/controller",
        "action": "Compile",
        "reason": "BadFilter",
        "type": "Warning",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web-1",
            "namespace": "shop",
            "uid": "pod-uid",
            "resourceVersion": "42",
        },
        "note": "filter has a syntax error",
    }


def test_same_thing_is_told_again_only_after_a_while(api: SmallApi) -> None:
    events, clock = recorder(api, repeat_seconds=600)
    tell(events)
    clock.now += 599
    tell(events)
    tell(events, "another message")
    clock.now += 2
    tell(events)
    assert events.flush()
    assert len(api.requests) == 3
    assert events.dropped == 0


def test_flood_is_cut_off_and_counted(api: SmallApi) -> None:
    events, clock = recorder(api, per_second=1, burst=5)
    for n in range(20):
        tell(events, f"number {n}")
    assert events.dropped == 15
    clock.now += 2
    tell(events, "later")
    assert events.flush()
    assert len(api.requests) == 6


def test_long_message_is_cut_to_what_the_server_takes(api: SmallApi) -> None:
    events, _ = recorder(api)
    tell(events, "é" * 1000)
    assert events.flush()
    note = msgspec.json.decode(api.requests[0][3])["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("é…")


def test_refused_event_is_counted_and_the_next_is_written(api: SmallApi) -> None:
    events, _ = recorder(api)
    api.answers["POST", paths.events("shop")] = [(403, {"message": "no"}), (201, {})]
    tell(events, "one")
    tell(events, "two")
    assert events.flush()
    assert events.dropped == 1
    assert len(api.requests) == 2
