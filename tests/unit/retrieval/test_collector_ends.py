"""When captures end: by their spec, their size, the store's, and when they are deleted."""

import json
import time
from dataclasses import replace

import pytest

from controller.reports import parse_answer
from retrieval.retention import SLACK_BYTES
from retrieval.store.base import Tally
from tests.unit.retrieval.builders import (
    CAPTURE,
    HEADER,
    STREAM,
    a_capture,
    a_key,
    a_pcap,
    a_record,
    a_report,
)
from tests.unit.retrieval.collecting import PATH, STORE_BYTES, Collector, reports, show


def test_a_suspended_captures_end_is_in_the_past_by_every_clock(collector: Collector) -> None:
    show(collector, a_capture(suspend=True))
    answer = collector.patch(a_pcap())
    assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "0")


def test_a_spec_that_cannot_be_understood_sets_no_end(collector: Collector) -> None:
    show(collector, a_capture(duration="a fortnight"))
    answer = collector.patch(a_pcap())
    assert answer.status_code == 204
    assert "Nightcap-Until" not in answer.headers


def test_at_its_limit_a_capture_ends_and_what_was_recorded_is_still_taken(
    collector: Collector,
) -> None:
    show(collector, a_capture(limits={"maxSize": 1000}, endTime="2030-01-01T00:00:00Z"))
    answer = collector.patch(HEADER + bytes(976))
    assert answer.headers["Nightcap-Until"] == "1893456000"
    answer = collector.patch(bytes(100), 1000)
    assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "0")
    assert collector.head().headers["Nightcap-Until"] == "0"


def test_far_above_its_limit_a_capture_is_refused(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SLACK_BYTES == 64 * 2**20
    monkeypatch.setattr("retrieval.retention.SLACK_BYTES", 500)
    show(collector, a_capture(limits={"maxSize": 1000}))
    assert collector.patch(HEADER + bytes(1400)).status_code == 204
    answer = collector.patch(bytes(100), 1424)
    assert (answer.status_code, "limits.maxSize" in answer.text) == (507, True)
    assert answer.headers["Nightcap-Until"] == "0"
    assert collector.patch(b"", 1424).status_code == 204  # a heartbeat brings its report


def test_a_ring_drops_its_oldest_complete_segment(collector: Collector) -> None:
    show(
        collector,
        a_capture(
            limits={"maxSize": 1000, "whenFull": "DropOldest"}, endTime="2030-01-01T00:00:00Z"
        ),
    )
    for seq in range(1, 5):
        path = f"/v1/captures/{CAPTURE}/eth0/{seq}"
        answer = collector.patch(HEADER + bytes(376), path=path, complete=True)
        assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "1893456000")
    kept = [segment.key.seq for segment in collector.store.segments(STREAM)]
    assert kept == [3, 4]
    assert collector.store.tally(STREAM) == Tally(2, 800)


def test_a_deleted_captures_files_go_and_only_after_the_api_server_was_asked(
    collector: Collector,
) -> None:
    collector.patch(a_pcap(), Nightcap_Report=a_report())
    collector.watch.show()
    collector.janitor.tidy(time.time())  # the watch does not know it, the API server does
    assert collector.store.has_stream(STREAM)
    collector.api.captures = []
    collector.api.is_down = True
    collector.janitor.tidy(time.time())
    assert collector.store.has_stream(STREAM)
    collector.api.is_down = False
    collector.janitor.tidy(time.time())
    assert list(collector.store.captures()) == []
    assert reports(collector)["reports"] == []


def test_above_the_stores_limit_finished_captures_go_and_running_ones_wait(
    collector: Collector,
) -> None:
    other = "ca9a0000-0000-4000-8000-000000000002"
    path = f"/v1/captures/{other}/eth0/1"
    record = a_record(1, bytes(60_000))
    body = HEADER + record * (STORE_BYTES // 2 // len(record) + 1)
    show(collector, a_capture(), a_capture("old", other))
    collector.patch(body, complete=True)
    collector.patch(body, path=path, complete=True)
    collector.store.wait_durable(a_key(), len(body), 5)
    collector.janitor.tidy(time.time())
    # Both run: nothing goes, and no more is taken, but a heartbeat is.
    refused = collector.patch(record, len(body), Nightcap_Report=a_report(1))
    assert refused.status_code == 507
    assert collector.patch(path=PATH.replace("/1", "/2")).status_code == 204
    assert len(collector.store.segments(STREAM)) == 1
    # The controller hears of it.
    _, [told] = parse_answer(json.dumps(reports(collector)).encode())
    assert told.refused == refused.text.strip() != ""
    show(collector, a_capture(), a_capture("old", other, phase="Finished"))
    collector.janitor.tidy(time.time())
    assert collector.store.segments(replace(STREAM, capture=other)) == ()
    assert len(collector.store.segments(STREAM)) == 1
    assert collector.patch(body, path=PATH.replace("/1", "/3")).status_code == 204
    _, [told] = parse_answer(json.dumps(reports(collector)).encode())
    assert told.refused == ""
