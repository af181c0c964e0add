import pytest

from nightcap.contract.reports import Report, State
from nightcap.contract.segments import StreamKey
from retrieval.collector.reports import ReportIndex
from retrieval.store.base import Store
from retrieval.stored_reports import load_stored
from tests.unit.retrieval.builders import CAPTURE, META, POD, STREAM

OTHER = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000002")


def a_report(seq: int, state: State = State.CAPTURING, **fields: object) -> Report:
    return Report(seq=seq, at=1.0, state=state, **fields)  # type: ignore[arg-type]


@pytest.fixture
def index(store: Store) -> ReportIndex:
    for stream in (STREAM, OTHER):
        store.create_stream(stream, META)
    return ReportIndex(store, boot_id="boot")


def take(index: ReportIndex, report: Report, now: float = 100, stream: StreamKey = STREAM) -> bool:
    return index.accept(stream, lambda: META, report, now)


def stored_seq(store: Store) -> int | None:
    stored = load_stored(store.report(STREAM))
    return None if stored is None else stored.report.seq


def test_the_highest_seq_wins(index: ReportIndex) -> None:
    assert take(index, a_report(2, packets=20))
    assert not take(index, a_report(1, packets=10))
    assert not take(index, a_report(2, packets=99))
    _, (entry,) = index.since("")
    assert entry["report"]["packets"] == 20


def test_a_change_of_state_is_written_at_once_and_the_rest_every_30_seconds(
    index: ReportIndex, store: Store
) -> None:
    take(index, a_report(1, State.WAITING), 100)
    assert stored_seq(store) == 1
    take(index, a_report(2, State.CAPTURING), 101)
    assert stored_seq(store) == 2
    take(index, a_report(3), 102)
    index.write_due(130)
    assert stored_seq(store) == 2
    take(index, a_report(4), 131)
    assert stored_seq(store) == 4
    take(index, a_report(5), 132)
    index.write_due(161)
    assert stored_seq(store) == 5
    take(index, a_report(6), 162)
    index.write_due(162, everything=True)
    assert stored_seq(store) == 6
    take(index, a_report(7, shipped=True), 163)
    assert stored_seq(store) == 7


def test_reports_survive_a_restart_and_old_cursors_get_everything(
    index: ReportIndex, store: Store
) -> None:
    take(index, a_report(1, message="hello"))
    take(index, a_report(1), stream=OTHER)
    cursor, _ = index.since("")
    again = ReportIndex(store, boot_id="another boot")
    again.load()
    _, entries = again.since(cursor)
    assert {(e["pod"]["uid"], e["report"]["message"]) for e in entries} == {
        (POD, "hello"),
        (OTHER.pod_uid, ""),
    }


def test_a_report_that_a_power_cut_left_unreadable_is_passed_over(
    index: ReportIndex, store: Store
) -> None:
    take(index, a_report(1))
    take(index, a_report(1), stream=OTHER)
    store.write_report(STREAM, b'{"received_at": 5, "rep', 2)
    again = ReportIndex(store)
    again.load()
    _, entries = again.since("")
    assert [entry["pod"]["uid"] for entry in entries] == [OTHER.pod_uid]


def test_a_cursor_gives_each_stream_once_the_latest_last(index: ReportIndex) -> None:
    take(index, a_report(1))
    cursor, _ = index.since("")
    take(index, a_report(1), stream=OTHER)
    take(index, a_report(2))
    index.touch(OTHER)
    later, entries = index.since(cursor)
    assert [entry["pod"]["uid"] for entry in entries] == [POD, OTHER.pod_uid]
    assert index.since(later) == (later, [])


def test_a_deleted_captures_reports_are_forgotten(index: ReportIndex) -> None:
    take(index, a_report(1))
    index.forget("storefront", CAPTURE)
    assert index.since("")[1] == []
