"""What a ceiling forbids is not kept, whatever the orders in the pod said."""

import json

import pytest

from nightcap.contract.ceilings import CaptureCeiling, Ceiling, parse_ceiling
from nightcap.kube.reflector import Change
from retrieval.collector.ceilings import Ceilings
from tests.unit.retrieval.builders import CAPTURE, HEADER, STREAM, a_capture, a_pcap
from tests.unit.retrieval.collecting import Collector, show

IN_2030 = "2030-01-01T00:00:00Z"
CREATED_AT = 1795312800  # of `a_capture`, seconds since the epoch


@pytest.mark.parametrize(
    ("spec", "ceiling", "rule"),
    [
        ({"duration": "2h"}, Ceiling(("night",), max_seconds=3600), "maxDuration: "),
        ({"limits": {"maxSize": "2Gi"}}, Ceiling(("night",), max_bytes=2**30), "maxSize: "),
        ({"interfaces": ["lo"]}, Ceiling(("night",), interfaces=frozenset({"eth0"})), "interfaces"),
        ({"endTime": IN_2030}, Ceiling(("night",), max_captures=0), "maxCaptures: "),
    ],
    ids=["too long", "too large", "another interface", "too many"],
)
def test_of_a_capture_beyond_its_ceiling_nothing_is_taken(
    collector: Collector, spec: dict[str, object], ceiling: Ceiling, rule: str
) -> None:
    show(collector, a_capture(**spec))
    collector.ceiling = ceiling
    answer = collector.patch(a_pcap())
    assert (answer.status_code, rule in answer.text) == (403, True), answer.text
    assert not collector.store.has_stream(STREAM)


def test_of_too_many_captures_the_oldest_are_taken(collector: Collector) -> None:
    newer = a_capture("newer", "ca9a0000-0000-4000-8000-00000000000f", endTime=IN_2030)
    newer["metadata"]["creationTimestamp"] = "2026-11-22T02:00:01Z"
    show(collector, a_capture(endTime=IN_2030), newer)
    collector.ceiling = Ceiling(("night",), max_captures=1)
    assert collector.patch(a_pcap()).status_code == 204
    path = f"/v1/captures/{newer['metadata']['uid']}/eth0/1"
    answer = collector.patch(a_pcap(), path=path)
    assert (answer.status_code, "maxCaptures: " in answer.text) == (403, True)


def test_what_a_capture_leaves_open_is_lowered(collector: Collector) -> None:
    show(collector, a_capture())
    collector.ceiling = Ceiling(("night",), max_bytes=1000, max_seconds=60)
    answer = collector.patch(HEADER + bytes(900))
    assert answer.headers["Nightcap-Until"] == str(CREATED_AT + 60)
    answer = collector.patch(bytes(100), len(HEADER) + 900)
    assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "0")


def test_a_ring_is_kept_as_small_as_the_ceiling_says(collector: Collector) -> None:
    show(collector, a_capture(endTime=IN_2030, limits={"whenFull": "DropOldest"}))
    collector.ceiling = Ceiling(("night",), max_bytes=1000)
    for seq in range(1, 5):
        path = f"/v1/captures/{CAPTURE}/eth0/{seq}"
        answer = collector.patch(HEADER + bytes(376), path=path, complete=True)
        assert answer.status_code == 204
    assert [segment.key.seq for segment in collector.store.segments(STREAM)] == [3, 4]


def test_a_ceiling_that_comes_later_ends_a_capture_and_what_was_recorded_is_still_taken(
    collector: Collector,
) -> None:
    show(collector, a_capture(duration="2h", startTime="2029-12-31T23:00:00Z"))
    size = len(a_pcap())
    assert collector.patch(a_pcap()).headers["Nightcap-Until"] != "0"
    collector.ceiling = Ceiling(("night",), max_seconds=3600)
    answer = collector.patch(b"more", size)
    assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "0")
    path = f"/v1/captures/{CAPTURE}/eth0/2"
    assert collector.patch(a_pcap(), path=path).status_code == 204


def test_a_change_of_any_ceiling_is_known_at_once() -> None:
    watched: list[CaptureCeiling] = []
    ceilings = Ceilings(lambda: tuple(watched))
    assert ceilings.of("shop") is None
    raw = {"metadata": {"name": "night"}, "spec": {"maxCaptures": 1}}
    watched.append(parse_ceiling(json.dumps(raw).encode()))
    assert ceilings.of("shop") is None, "looked up again though nothing was told"
    ceilings.on_change(Change("added", watched[0]))
    assert ceilings.of("shop") == Ceiling(("night",), max_captures=1)
