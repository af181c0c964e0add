from pathlib import Path
from typing import Any

import pytest

from nightcap.contract.reports import State
from nightcap.contract.uploads import MAX_BODY_BYTES
from sidecar.capture_spool import Status
from sidecar.segment import Segment
from sidecar.shipping import (
    Delay,
    Job,
    Kind,
    Received,
    Turn,
    Turns,
    Verdict,
    accepted,
    body_end,
    choose,
    judge_offset,
)
from sidecar.spool import CaptureSpool, Spool

NOW = 1000.0


def a_capture(tmp_path: Path, *segments: Segment, name: str = "a1") -> CaptureSpool:
    capture = Spool(str(tmp_path), 10**9).capture(name)
    capture.segments = list(segments)
    return capture


def a_segment(seq: int = 0, interface: str = "eth0", **facts: Any) -> Segment:
    segment = Segment(interface, seq, seq, 10)
    for name, value in facts.items():
        setattr(segment, name, value)
    return segment


def next_job(capture: CaptureSpool, **turn: float) -> tuple[Job | None, float]:
    facts = {"reported_at": NOW, **turn}
    return choose([capture], {capture.id: Turn(**facts)}, NOW)  # type: ignore[arg-type]


def test_what_has_grown_is_sent_when_its_pace_allows(tmp_path: Path) -> None:
    segment = a_segment(size=100, acked=40, ours=True, next_at=NOW + 1)
    capture = a_capture(tmp_path, segment)
    assert next_job(capture) == (None, NOW + 1)
    segment.next_at = NOW
    assert next_job(capture)[0] == Job(Kind.APPEND, capture, segment)


def test_a_complete_segment_and_a_full_body_do_not_wait(tmp_path: Path) -> None:
    for segment in (
        a_segment(next_at=NOW + 9, complete=True, size=1),
        a_segment(next_at=NOW + 9, size=MAX_BODY_BYTES),
    ):
        capture = a_capture(tmp_path, segment)
        assert next_job(capture)[0] == Job(Kind.APPEND, capture, segment)


def test_what_was_held_goes_at_once_and_not_before(tmp_path: Path) -> None:
    """In the open windows of a trial, whatever pace the collector wants."""
    segment = a_segment(size=100, acked=40, ours=True, next_at=NOW + 9)
    capture = a_capture(tmp_path, segment)
    capture.hold(held=True)
    assert next_job(capture)[0] is None
    capture.hold(held=False)
    assert next_job(capture)[0] == Job(Kind.APPEND, capture, segment)


def test_segments_of_an_interface_go_in_order_and_interfaces_side_by_side(tmp_path: Path) -> None:
    first = a_segment(0, size=100, acked=100, next_at=NOW + 5)
    second = a_segment(1, size=100)
    other = a_segment(0, "eth1", size=100)
    capture = a_capture(tmp_path, first, second, other)
    assert next_job(capture)[0] == Job(Kind.APPEND, capture, other)


def test_a_recovered_segment_is_asked_for_first(tmp_path: Path) -> None:
    segment = a_segment(complete=True, size=100, recovered=True)
    capture = a_capture(tmp_path, segment)
    assert next_job(capture)[0] == Job(Kind.ASK, capture, segment)


def test_one_that_was_dropped_on_its_way_is_asked_for(tmp_path: Path) -> None:
    segment = a_segment(complete=True, removed=True, ours=True)
    capture = a_capture(tmp_path, segment)
    assert next_job(capture)[0] == Job(Kind.ASK, capture, segment)


def test_a_sealed_segment_is_asked_for_until_it_is_durable(tmp_path: Path) -> None:
    segment = a_segment(complete=True, size=100, acked=100, sealed=True, next_at=NOW)
    capture = a_capture(tmp_path, segment)
    assert next_job(capture)[0] == Job(Kind.ASK, capture, segment)


def test_heartbeats_follow_news_and_silence(tmp_path: Path) -> None:
    capture = a_capture(tmp_path)
    assert next_job(capture) == (None, NOW + 30)
    assert next_job(capture, reported_at=NOW - 30)[0] == Job(Kind.HEARTBEAT, capture)
    capture.report_due = True
    assert next_job(capture)[0] == Job(Kind.HEARTBEAT, capture)


def test_packets_that_no_report_has_counted_are_told_soon(tmp_path: Path) -> None:
    """The append that brought them may have gone before they were counted."""
    capture = a_capture(tmp_path)
    capture.say(Status(State.CAPTURING, packets=1))
    capture.report(NOW)
    capture.report_due = False
    assert next_job(capture) == (None, NOW + 30)
    capture.say(Status(State.CAPTURING, packets=2))
    assert next_job(capture) == (None, NOW + 5)
    capture.report(NOW)
    assert next_job(capture) == (None, NOW + 30)


def test_the_final_report_waits_for_the_last_segment_and_is_sent_once(tmp_path: Path) -> None:
    segment = a_segment(complete=True, size=100, acked=100, sealed=True, next_at=NOW + 1)
    capture = a_capture(tmp_path, segment)
    capture.finished = True
    assert next_job(capture)[0] is None
    capture.segments.clear()
    assert next_job(capture)[0] == Job(Kind.FINAL, capture)
    capture.ledger.reported = True
    assert next_job(capture)[0] is None


def test_a_disowned_or_refused_capture_lets_the_others_go_first(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10**9)
    gone, refused, fine = (spool.capture(name) for name in ("a", "b", "c"))
    gone.ledger.gone = True
    for capture in (gone, refused, fine):
        capture.report_due = True
    turns = {"a": Turn(), "b": Turn(retry_at=NOW + 5), "c": Turn(served_at=NOW)}
    assert choose([gone, refused, fine], turns, NOW)[0] == Job(Kind.HEARTBEAT, fine)


def test_a_body_ends_at_a_mark_when_all_is_too_much() -> None:
    size = 3 * MAX_BODY_BYTES
    marks = [MAX_BODY_BYTES // 2, MAX_BODY_BYTES - 7, MAX_BODY_BYTES + 1]
    assert body_end(a_segment(size=100)) == 100
    assert body_end(a_segment(size=size, marks=marks)) == MAX_BODY_BYTES - 7
    assert body_end(a_segment(size=size)) is None


def test_what_the_collector_has_beyond_the_disk_is_its_end() -> None:
    assert body_end(a_segment(size=100, acked=150, complete=True)) == 150


def test_an_answer_moves_the_offset_and_only_the_durable_frees() -> None:
    segment = a_segment(size=100, complete=True, marks=[50, 90])
    accepted(segment, Received(100, 50), completed=True, now=NOW, pace=1)
    facts = (segment.acked, segment.durable, segment.sealed, segment.shipped)
    assert facts == (100, 50, True, False)
    accepted(segment, Received(100, 100), completed=True, now=NOW, pace=1)
    assert (segment.shipped, segment.marks) == (True, [])


def test_a_collector_that_lost_bytes_is_followed_back() -> None:
    segment = a_segment(size=100, acked=80, durable=40, ours=True)
    accepted(segment, Received(50, 40), completed=False, now=NOW, pace=1)
    assert (segment.acked, segment.sealed) == (50, False)


@pytest.mark.parametrize(
    ("sent", "received", "facts", "fresh", "verdict"),
    [
        (0, 500, {"size": 100}, True, Verdict.TAKEN),
        (0, 60, {"size": 100}, False, Verdict.RESUME),
        (80, 60, {"size": 100}, False, Verdict.RESUME),
        (60, 150, {"size": 100, "complete": True}, False, Verdict.RESUME),
        (100, 100, {"size": 100, "complete": True}, False, Verdict.DONE),
        (60, 60, {"size": 100}, False, Verdict.STUCK),
        (0, 0, {"size": 100}, True, Verdict.STUCK),
    ],
)
def test_a_refused_offset_is_understood(
    sent: int, received: int, facts: dict[str, Any], fresh: bool, verdict: Verdict
) -> None:
    assert judge_offset(a_segment(**facts), sent=sent, received=received, fresh=fresh) is verdict


def test_waits_double_up_to_a_limit_and_begin_anew() -> None:
    delay = Delay()
    assert [delay.longer(1.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    delay.reset()
    assert delay.longer(0.5) == 0.25


def test_a_refusal_that_names_a_pause_is_followed_by_no_less() -> None:
    turns = Turns()
    assert turns.put_off("a1", NOW, 12.0)
    assert NOW + 12 < turns.of["a1"].retry_at <= NOW + 12.75
    assert not turns.put_off("a1", NOW, 12.0)
    assert turns.of["a1"].retry_at <= NOW + 13.5
    turns.hurry()  # the pod is going
    turns.put_off("a1", NOW, 12.0)
    assert turns.of["a1"].retry_at <= NOW + 2.5
