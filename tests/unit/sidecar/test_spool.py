import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightcap.contract.orders import Limit
from nightcap.contract.reports import Gap, Lost, Reason, State
from nightcap.pcap.formats import Header, Record, pack_header, pack_record, scan
from sidecar.ledger import Ledger, LedgerFile
from sidecar.lifecycle import End
from sidecar.recovery import mend, recover
from sidecar.segment import Segment
from sidecar.spool import CaptureSpool, Spool, Status

HEADER = Header(linktype=1, snaplen=65535, nanoseconds=True)
CAPTURE = "a1"


def a_file(*sizes: int) -> bytes:
    records = [Record(10**9 * n, size, bytes(size)) for n, size in enumerate(sizes, 1)]
    return pack_header(HEADER) + b"".join(pack_record(HEADER, record) for record in records)


def write(capture: CaptureSpool, *sizes: int, complete: bool = True) -> Segment:
    segment, fd = capture.begin("eth0", 10)
    data = a_file(*sizes)
    os.write(fd, data)
    os.close(fd)
    capture.grow(segment, len(data), [])
    if complete:
        capture.complete(segment, len(data), len(sizes))
    return segment


def read(capture: CaptureSpool) -> Ledger:
    return LedgerFile(capture.folder).read()


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.pcap*"))


def reopened(root: Path) -> CaptureSpool:
    return restarted_on(root).capture(CAPTURE)


def restarted_on(root: Path) -> Spool:
    """The spool as a worker after the last one has it."""
    spool = Spool(str(root), 10**9)
    recover(spool, spool.leftovers())
    return spool


def test_a_segment_is_published_by_rename_when_it_is_complete(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    segment = write(capture, 60, complete=False)
    assert files(tmp_path) == ["a1/eth0/00000000.pcap.part"]
    capture.complete(segment, segment.size, 1)
    assert files(tmp_path) == ["a1/eth0/00000000.pcap"]


def test_a_segment_without_packets_leaves_no_trace(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    segment = write(capture, complete=False)
    capture.complete(segment, 24, 0)
    assert files(tmp_path) == []
    assert capture.segments == []


def test_numbers_never_repeat_also_not_after_a_restart(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    first = write(capture, 60)
    capture.release(first)
    assert files(tmp_path) == []
    assert write(reopened(tmp_path), 60).seq == 1


def test_counters_and_report_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    write(capture, 60, 61)
    capture.say(Status(State.CAPTURING, packets=2, received=5, dropped=1))
    last = capture.report(1.0)
    again = reopened(tmp_path)
    write(again, 62)
    assert (again.ledger.packets, again.ledger.received, again.ledger.dropped) == (3, 5, 1)
    assert again.report(2.0).seq > last.seq


def test_an_end_survives_but_not_that_the_pod_was_going(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    capture.ledger.end = End(Reason.SIZE, 60, Limit(5, 6))
    capture.reported()
    again = reopened(tmp_path)
    assert again.ledger.end == End(Reason.SIZE, 60, Limit(5, 6))
    assert again.ledger.reported
    again.ledger.end = End(Reason.TERMINATED, 60, Limit(5, 6))
    again.save()
    last = reopened(tmp_path)
    assert last.ledger.end is None
    assert not last.ledger.reported


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"v":1,"packets":"x"}', "\x00", "\n\n", "{\n[]"]
)
def test_a_broken_ledger_is_counted_anew(tmp_path: Path, text: str) -> None:
    write(Spool(str(tmp_path), 10**9).capture(CAPTURE), 60, 61)
    (tmp_path / CAPTURE / "state.json").write_text(text)
    again = reopened(tmp_path)
    assert again.ledger.packets == 2
    assert again.ledger.next_seq == {"eth0": 1}


def test_a_ledger_in_full_swing_is_added_to_and_now_and_then_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    path = tmp_path / CAPTURE / "state.json"
    write(capture, 60)
    first = path.stat().st_ino
    lines = len(path.read_text().splitlines())
    for _ in range(10):
        write(capture, 60)
    assert path.stat().st_ino == first
    assert len(path.read_text().splitlines()) == lines + 20
    assert read(capture).packets == 11
    now += 1.0
    capture.save()
    assert path.stat().st_ino != first
    assert len(path.read_text().splitlines()) == 1
    assert read(capture).packets == 11


@pytest.mark.parametrize("torn", ["\n", '\n{"v": 1, "pack', "\n\x00\x00\x00", '\n{"v"\n{'])
def test_a_torn_line_takes_only_itself(tmp_path: Path, torn: str) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    write(capture, 60, 61)
    path = tmp_path / CAPTURE / "state.json"
    whole = path.read_text()
    path.write_text(whole + torn)
    assert read(capture).packets == 2
    capture.ledger.packets = 9
    capture.save()
    assert path.read_text().startswith(whole + torn + "\n")
    assert read(capture).packets == 9


def test_strange_files_are_left_alone(tmp_path: Path) -> None:
    write(Spool(str(tmp_path), 10**9).capture(CAPTURE), 60)
    (tmp_path / CAPTURE / "eth0" / "notes.txt").touch()
    (tmp_path / CAPTURE / "%zz").mkdir()
    (tmp_path / "Not A Capture").mkdir()
    again = reopened(tmp_path)
    assert [segment.seq for segment in again.segments] == [0]
    assert list(again.spool.captures) == [CAPTURE]


@given(
    sizes=st.lists(st.integers(0, 300), max_size=12),
    cut=st.integers(0, 4000),
    counted_before=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_dead_worker_left_is_whole_records_counted_once(
    sizes: list[int], cut: int, counted_before: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        capture = Spool(str(root), 10**9).capture(CAPTURE)
        for _ in range(counted_before):
            write(capture, 100)
        write(capture, *sizes, complete=False)
        path = root / CAPTURE / "eth0" / f"{counted_before:08d}.pcap.part"
        data = path.read_bytes()[:cut]
        path.write_bytes(data)
        whole = [
            end
            for number in range(1, len(sizes) + 1)
            if (end := len(a_file(*sizes[:number]))) <= len(data)
        ]
        for _ in range(2):  # a second recovery finds what the first made
            again = reopened(root)
            assert again.ledger.packets == counted_before + len(whole)
            assert again.ledger.bytes == sum(segment.size for segment in again.segments)
            assert len(again.segments) == counted_before + bool(whole)
            assert again.ledger.next_seq["eth0"] == counted_before + 1
            assert not list(root.rglob("*.part"))
        if whole:
            last = root / CAPTURE / "eth0" / f"{counted_before:08d}.pcap"
            assert last.stat().st_size == whole[-1]


def test_a_dropped_segment_is_counted_and_its_end_is_told(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 200)
    capture = spool.capture(CAPTURE)
    first, second, third = (write(capture, 100) for _ in range(3))
    first.acked = 40
    spool.enforce()
    assert capture.ledger.lost == Lost(2, 140 - 40 + 140, (Gap("eth0", 0, 1, 40, 240),))
    assert capture.segments == [first, third]  # what never began at the collector needs no end
    assert (first.removed, first.size) == (True, 40)
    assert second.removed
    assert files(tmp_path) == ["a1/eth0/00000002.pcap"]


@pytest.mark.parametrize("how", ["busy", "ours"])
def test_one_that_may_have_arrived_is_not_forgotten_when_it_is_dropped(
    tmp_path: Path, how: str
) -> None:
    """Its answer was on the way, or lost: the collector may have a part whose end nobody told."""
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    segment = write(capture, 100)
    setattr(segment, how, True)
    capture.drop(segment)
    assert capture.segments == [segment]
    capture.holds(segment, 64)
    assert capture.ledger.lost == Lost(1, 76, (Gap("eth0", 0, 0, 64, 76),))


def test_of_one_that_arrived_whole_nothing_is_lost_unless_the_collector_loses_it(
    tmp_path: Path,
) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    segment = write(capture, 100)
    segment.acked = segment.size
    capture.drop(segment)
    assert capture.ledger.lost == Lost()
    capture.holds(segment, 24)
    assert capture.ledger.lost == Lost(1, 116, (Gap("eth0", 0, 0, 24, 116),))
    assert reopened(tmp_path).ledger.lost == Lost()
    capture.save()
    assert reopened(tmp_path).ledger.lost == capture.ledger.lost


def test_of_one_that_an_earlier_worker_sent_the_collector_tells_what_is_lost(
    tmp_path: Path,
) -> None:
    write(Spool(str(tmp_path), 10**9).capture(CAPTURE), 100)
    capture = reopened(tmp_path)
    [segment] = capture.segments
    capture.drop(segment)
    assert capture.ledger.lost == Lost(1, 140, (Gap("eth0", 0, 0, 0, 140),))
    capture.holds(segment, 40)
    assert capture.ledger.lost == Lost(1, 100, (Gap("eth0", 0, 0, 40, 100),))
    capture.holds(segment, 140)
    assert capture.ledger.lost == Lost()


def shipped_and_forgotten(spool: Spool, capture_id: str = CAPTURE) -> int:
    """What orders that hold a capture no more make of it; the number of its last report."""
    capture = spool.capture(capture_id)
    segment = write(capture, 60, 61)
    capture.say(Status(State.FINISHED, Reason.SIZE, received=5, dropped=1))
    capture.ledger.end = End(Reason.SIZE, 60, Limit(5, 6))
    capture.release(segment)
    seq = capture.report(1.0, shipped=True).seq
    capture.reported()
    spool.forget(capture_id)
    return seq


@pytest.mark.parametrize("restarted", [False, True])
def test_one_that_was_shipped_and_left_the_orders_counts_on_when_it_is_resumed(
    tmp_path: Path, *, restarted: bool
) -> None:
    spool = Spool(str(tmp_path), 10**9)
    seq = shipped_and_forgotten(spool)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["state.json"]
    if restarted:
        spool = restarted_on(tmp_path)
        assert spool.captures == {}
    again = spool.capture(CAPTURE)
    assert write(again, 62).seq == 1
    counted = again.ledger
    assert (counted.packets, counted.received, counted.dropped) == (3, 5, 1)
    assert again.report(2.0).seq > seq
    # Deleted while it runs: nothing of it stays.
    counted.reported = False
    spool.forget(CAPTURE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_that_runs_again_after_a_crash_keeps_its_later_ledger(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10**9)
    shipped_and_forgotten(spool)
    write(spool.capture(CAPTURE), 62)
    assert reopened(tmp_path).ledger.packets == 3


def test_only_the_latest_ledgers_are_kept(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10**9)
    for number in range(70):
        shipped_and_forgotten(spool, f"{number:04x}")
    kept = sorted(path.name for path in (tmp_path / ".ended").iterdir())
    assert kept == [f"{number:04x}" for number in range(6, 70)]


def test_renumbering_moves_the_file_and_the_next_number(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    segment = write(capture, 60)
    capture.renumber(segment, 7)
    assert files(tmp_path) == ["a1/eth0/00000007.pcap"]
    assert write(capture, 60).seq == 8


def test_the_backlog_is_what_is_not_durable(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    segment = write(capture, 100)
    segment.durable = 40
    assert capture.report(1.0).backlog == 100


def test_a_forgotten_capture_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10**9)
    write(spool.capture(CAPTURE), 60)
    spool.forget(CAPTURE)
    assert list(tmp_path.iterdir()) == []


def test_a_disowned_capture_keeps_only_that_it_is(tmp_path: Path) -> None:
    capture = Spool(str(tmp_path), 10**9).capture(CAPTURE)
    write(capture, 60)
    capture.ledger.gone = True
    capture.drop_all()
    assert read(capture).gone is True
    assert files(tmp_path) == []
    assert reopened(tmp_path).ledger.gone


def test_mending_removes_what_holds_no_packet(tmp_path: Path) -> None:
    path = tmp_path / "0.part"
    for data in (b"", a_file()[:10], a_file(), a_file(60)[:50], b"no pcap at all, but long enough"):
        path.write_bytes(data)
        assert mend(str(path)) is None
        assert not path.exists()
    path.write_bytes(a_file(60, 61)[:-1])
    found = mend(str(path))
    assert found is not None
    assert found.packets == 1
    with path.open("rb") as file:
        assert scan(file).damage == ""
