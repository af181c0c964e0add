import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightcap.contract.segments import BadName, StreamKey
from retrieval.store.base import OffsetConflict, StoreFailed, StoreFull, StreamMeta, Tally
from retrieval.store.directory import ReadableDirectory
from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.builders import CAPTURE, POD, STREAM, a_key, a_pcap

META = StreamMeta(pod="web-0", node="node-a", capture="dns")


@pytest.fixture
def stream(store: DirectoryStore) -> StreamKey:
    store.create_stream(STREAM, META)
    return STREAM


def content(store: ReadableDirectory, seq: int = 1) -> bytes:
    with store.open(a_key(seq)) as reader:
        return reader.read_at(0, 2**24)


@pytest.mark.usefixtures("stream")
def test_what_is_appended_is_there_and_durable_after_the_commit(store: DirectoryStore) -> None:
    pcap = a_pcap()
    state = store.append(a_key(), 0, pcap[:50], complete=False)
    assert (state.size, state.complete) == (50, False)
    assert store.wait_durable(a_key(), 50, 5) == 50
    store.append(a_key(), 50, pcap[50:], complete=True)
    assert store.wait_durable(a_key(), len(pcap), 5) == len(pcap)
    assert content(store) == pcap
    state = store.segment(a_key())
    assert (state.size, state.complete, state.durable) == (len(pcap), True, len(pcap))


@pytest.mark.usefixtures("stream")
def test_a_growing_segment_has_another_name_until_it_is_complete_and_safe(
    store: DirectoryStore,
) -> None:
    folder = store.root / STREAM.path / "eth0"
    store.append(a_key(), 0, a_pcap(), complete=False)
    store.wait_durable(a_key(), len(a_pcap()), 5)
    assert [path.name for path in folder.iterdir()] == ["00000001.pcap.part"]
    state = store.append(a_key(), len(a_pcap()), b"", complete=True)
    # All bytes were safe already; its end is not, and until then somebody must keep it.
    assert state.durable < len(a_pcap())
    assert store.wait_durable(a_key(), len(a_pcap()), 5) == len(a_pcap())
    assert [path.name for path in folder.iterdir()] == ["00000001.pcap"]


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize(
    ("offset", "body", "complete"),
    [
        pytest.param(0, b"again", False, id="from the start again"),
        pytest.param(3, b"rest", False, id="over what is there"),
        pytest.param(9, b"rest", False, id="behind a gap"),
        pytest.param(0, b"", False, id="nothing, at the start"),
    ],
)
def test_an_append_elsewhere_than_at_the_end_is_refused_with_the_size(
    store: DirectoryStore, offset: int, body: bytes, complete: bool
) -> None:
    store.append(a_key(), 0, b"12345", complete=False)
    with pytest.raises(OffsetConflict) as refused:
        store.append(a_key(), offset, body, complete=complete)
    assert refused.value.segment.size == 5
    assert content(store) == b"12345"


@pytest.mark.usefixtures("stream")
def test_a_complete_segment_takes_no_more_but_may_be_completed_again(
    store: DirectoryStore,
) -> None:
    store.append(a_key(), 0, b"12345", complete=True)
    for body, complete in ((b"6", False), (b"6", True), (b"", False)):
        with pytest.raises(OffsetConflict) as refused:
            store.append(a_key(), 5, body, complete=complete)
        assert (refused.value.segment.size, refused.value.segment.complete) == (5, True)
    assert store.append(a_key(), 5, b"", complete=True).size == 5
    assert store.wait_durable(a_key(), 5, 5) == 5
    assert store.append(a_key(), 5, b"", complete=True).complete


@pytest.mark.usefixtures("stream")
def test_a_heartbeat_and_the_end_of_nothing_make_no_file(store: DirectoryStore) -> None:
    assert store.append(a_key(7), 0, b"", complete=False).size == 0
    assert store.append(a_key(7), 0, b"", complete=True).size == 0
    assert store.segments(STREAM) == ()


def test_another_process_takes_up_where_the_first_one_ended(tmp_path: Path) -> None:
    pcap = a_pcap(20)
    for begin in range(0, len(pcap), 100):
        store = DirectoryStore(tmp_path, commit_seconds=0.001)
        store.start()
        if begin == 0:
            store.create_stream(STREAM, META)
        assert store.segment(a_key()).size == begin
        store.append(a_key(), begin, pcap[begin : begin + 100], complete=False)
        store.close()
    store = DirectoryStore(tmp_path)
    store.start()
    # It does not know what the process before it made safe: it makes it safe again.
    assert store.segment(a_key()).durable == 0
    assert store.wait_durable(a_key(), len(pcap), 5) == len(pcap)
    assert content(store) == pcap
    store.close()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(min_size=1, max_size=400),
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 120), st.booleans()), max_size=40),
)
def test_any_order_of_appends_ends_with_the_exact_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, steps: list[tuple[int, int, bool]]
) -> None:
    """Duplicates, gaps and overlaps are refused with the offset that lets a client go on."""
    store = DirectoryStore(tmp_path_factory.mktemp("store"), commit_seconds=0.001)
    store.start()
    try:
        store.create_stream(STREAM, META)
        size = 0
        for offset, length, waits in steps:
            body = data[offset : offset + length]
            if offset == size:
                size = store.append(a_key(), offset, body, complete=False).size
                assert offset + len(body) == size
            else:
                with pytest.raises(OffsetConflict) as refused:
                    store.append(a_key(), offset, body, complete=False)
                assert refused.value.segment.size == size
            if waits and size:
                assert store.wait_durable(a_key(), size, 5) >= size
        size = store.segment(a_key()).size
        store.append(a_key(), size, data[size:], complete=True)
        assert store.wait_durable(a_key(), len(data), 5) == len(data)
        assert content(store) == data
        assert store.tally(STREAM) == Tally(1, len(data))
    finally:
        store.close()


@pytest.mark.usefixtures("stream")
def test_of_appends_at_one_offset_at_the_same_time_one_wins(store: DirectoryStore) -> None:
    wins: list[int] = []

    def write(number: int) -> None:
        size = 0
        for _ in range(50):
            try:
                size = store.append(a_key(), size, bytes([number]) * 1000, complete=False).size
                wins.append(number)
            except OffsetConflict as conflict:
                size = conflict.segment.size

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = content(store)
    assert len(stored) == 1000 * len(wins)
    assert all(len(set(stored[at : at + 1000])) == 1 for at in range(0, len(stored), 1000))
    assert store.tally(STREAM).bytes == len(stored)


@pytest.mark.usefixtures("stream")
def test_many_segments_become_safe_in_few_commits(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(fd), real(fd))[1])
    for _ in range(10):
        for seq in range(20):
            size = store.segment(a_key(seq)).size
            store.append(a_key(seq), size, b"1234", complete=False)
    for seq in range(20):
        assert store.wait_durable(a_key(seq), 40, 5) == 40
    assert len(calls) < 200


@pytest.mark.usefixtures("stream")
def test_bytes_that_the_disk_refused_to_keep_are_gone_and_never_called_durable(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the kernel forgets what it could not write, and so must we."""
    store.append(a_key(), 0, b"12345", complete=False)
    store.wait_durable(a_key(), 5, 5)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        store.append(a_key(), 5, b"6789", complete=True)
        with pytest.raises(StoreFailed, match="Input/output error"):
            store.wait_durable(a_key(), 9, 5)
    assert store.segment(a_key()).size == 5
    store.append(a_key(), 5, b"6789", complete=True)
    assert store.wait_durable(a_key(), 9, 5) == 9
    assert content(store) == b"123456789"


@pytest.mark.usefixtures("stream")
def test_a_folder_that_could_not_be_made_safe_is_tried_again(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("retrieval.store.writing._fsync_folder", fail)
        store.append(a_key(), 0, b"12345", complete=False)
        with pytest.raises(StoreFailed):
            store.wait_durable(a_key(), 5, 5)
    synced: list[Path] = []
    monkeypatch.setattr("retrieval.store.writing._fsync_folder", synced.append)
    assert store.wait_durable(a_key(), 5, 5) == 5
    assert store.root / STREAM.path / "eth0" in synced


@pytest.mark.usefixtures("stream")
def test_an_empty_file_that_a_crash_left_is_written_on(store: DirectoryStore) -> None:
    folder = store.root / STREAM.path / "eth0"
    folder.mkdir()
    (folder / "00000001.pcap.part").touch()
    assert store.segment(a_key()).size == 0
    store.append(a_key(), 0, b"12345", complete=True)
    assert store.wait_durable(a_key(), 5, 5) == 5


@pytest.mark.usefixtures("stream")
def test_first_appends_to_one_interface_at_the_same_time_all_succeed(
    store: DirectoryStore,
) -> None:
    with ThreadPoolExecutor(16) as pool:
        for interface in ("eth0", "eth1", "eth2", "eth3"):
            keys = [a_key(seq, interface) for seq in range(16)]
            list(pool.map(lambda key: store.append(key, 0, b"1234", complete=True), keys))
    assert store.tally(STREAM) == Tally(64, 256)


@pytest.mark.usefixtures("stream")
def test_a_file_that_the_other_program_deleted_starts_anew(store: DirectoryStore) -> None:
    store.append(a_key(), 0, b"12345", complete=False)
    store.wait_durable(a_key(), 5, 5)
    ReadableDirectory(store.root).delete_segment(a_key())
    with pytest.raises(OffsetConflict) as refused:
        store.append(a_key(), 5, b"6", complete=False)
    assert refused.value.segment.size == 0
    assert store.recount() == ()  # nobody had asked how much there is
    assert store.tally(STREAM) == Tally(0, 0)


@pytest.mark.usefixtures("stream")
def test_recounting_names_the_streams_of_which_files_were_deleted(store: DirectoryStore) -> None:
    store.append(a_key(), 0, b"12345", complete=True)
    store.wait_durable(a_key(), 5, 5)
    assert store.tally(STREAM) == Tally(1, 5)
    assert store.recount() == ()
    ReadableDirectory(store.root).delete_segment(a_key())
    assert store.recount() == (STREAM,)
    assert store.tally(STREAM) == Tally(0, 0)


@pytest.mark.usefixtures("stream")
def test_a_reader_keeps_what_it_opened_when_the_file_goes(store: DirectoryStore) -> None:
    store.append(a_key(), 0, b"12345", complete=True)
    store.wait_durable(a_key(), 5, 5)
    with store.open(a_key()) as reader:
        store.delete_segment(a_key())
        assert reader.read_at(0, 9) == b"12345"
    with pytest.raises(FileNotFoundError):
        store.open(a_key())


@pytest.mark.usefixtures("stream")
def test_deleting_a_capture_leaves_nothing_of_it_and_all_of_the_others(
    store: DirectoryStore,
) -> None:
    other = StreamKey("storefront", "abc", POD)
    store.create_stream(other, META)
    store.append(a_key(), 0, b"12345", complete=False)
    store.append(a_key(stream=other), 0, b"12345", complete=False)
    store.delete_capture("storefront", CAPTURE)
    assert list(store.captures()) == [("storefront", "abc")]
    assert not store.has_stream(STREAM)
    assert store.segment(a_key()).size == 0
    assert store.wait_durable(a_key(stream=other), 5, 5) == 5


@pytest.mark.usefixtures("stream")
def test_meta_report_and_link_types_are_kept(store: DirectoryStore) -> None:
    store.set_link(a_key(), 1)
    store.set_link(a_key(interface="any"), 113)
    store.write_report(STREAM, b"{}", 1)
    meta = ReadableDirectory(store.root).meta(STREAM)
    assert meta is not None
    assert (meta.pod, meta.node, meta.links) == ("web-0", "node-a", {"eth0": 1, "any": 113})
    assert store.report(STREAM) == b"{}"
    assert store.segments(STREAM) == ()


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("interface", ["meta.json", "report.json"])
def test_an_interface_called_like_a_file_of_the_store_is_refused(
    store: DirectoryStore, interface: str
) -> None:
    with pytest.raises(BadName, match="interface"):
        store.append(a_key(interface=interface), 0, b"1", complete=False)
    assert store.meta(STREAM) is not None


def test_what_is_not_ours_on_the_volume_is_passed_over(store: DirectoryStore) -> None:
    for path in ("lost+found", "storefront/lost+found", ".snapshot/abc", "storefront/abc/x"):
        (store.root / path).mkdir(parents=True)
    (store.root / "storefront" / "abc" / "note.txt").write_text("hello")
    (store.root / STREAM.path / "eth0").mkdir(parents=True)
    for name in ("1.pcap", "00000001.pcap.bak", "00000002.pcap,new", "core"):
        (store.root / STREAM.path / "eth0" / name).write_text("hello")
    assert sorted(store.captures()) == [("storefront", "abc"), ("storefront", CAPTURE)]
    assert store.streams("storefront", "abc") == ()
    assert store.segments(STREAM) == ()


@pytest.mark.parametrize(
    ("namespace", "capture"),
    [("..", "abc"), ("storefront", ".."), ("storefront", "a/b"), ("", "abc"), ("a", "")],
)
def test_a_name_that_is_no_name_is_no_folder(
    store: DirectoryStore, namespace: str, capture: str
) -> None:
    with pytest.raises(BadName):
        store.streams(namespace, capture)
    with pytest.raises(BadName):
        store.delete_capture(namespace, capture)


def test_a_link_in_place_of_a_segment_is_not_followed(store: DirectoryStore) -> None:
    folder = store.root / STREAM.path / "eth0"
    folder.mkdir(parents=True)
    (folder / "00000001.pcap").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic"):
        store.open(a_key())


def test_a_store_without_a_directory_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="mount a volume there"):
        DirectoryStore(tmp_path / "absent").start()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[DirectoryStore]:
    """A store on a file system of one mebibyte."""
    root = tmp_path / "tiny"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=True)
    opened = DirectoryStore(root, commit_seconds=0.002)
    opened.start()
    yield opened
    opened.close()
    subprocess.run(["umount", root], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_on_a_full_disk_nothing_half_is_kept_and_what_is_stored_stays_readable(
    tiny: DirectoryStore,
) -> None:
    tiny.create_stream(STREAM, META)
    pcap = a_pcap(3000)
    tiny.append(a_key(), 0, pcap, complete=False)
    tiny.wait_durable(a_key(), len(pcap), 5)
    with pytest.raises(StoreFull):
        tiny.append(a_key(), len(pcap), b"x" * 2**20, complete=True)
    with pytest.raises(StoreFull):
        tiny.append(a_key(2), 0, b"x" * 2**20, complete=False)
    assert tiny.segment(a_key()).size == len(pcap)
    assert [segment.key for segment in tiny.segments(STREAM)] == [a_key()]
    assert content(tiny) == pcap
    assert tiny.tally(STREAM) == Tally(1, len(pcap))
    tiny.delete_segment(a_key())
    tiny.append(a_key(2), 0, pcap, complete=True)
    assert tiny.wait_durable(a_key(2), len(pcap), 5) == len(pcap)


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_segment_that_is_completed_while_it_is_listed_is_never_missing(tmp_path: Path) -> None:
    """A list once left out what was renamed between reading the folder and asking for its size."""
    folder = tmp_path / STREAM.path / "eth0"
    folder.mkdir(parents=True)
    numbers = range(2000)
    for number in numbers:
        (folder / f"{number:08d}.pcap.part").touch()

    def complete_all() -> None:
        for number in numbers:
            (folder / f"{number:08d}.pcap.part").rename(folder / f"{number:08d}.pcap")

    store = ReadableDirectory(tmp_path)
    renaming = threading.Thread(target=complete_all)
    renaming.start()
    counts = {len(store.segments(STREAM))}
    while renaming.is_alive():
        counts.add(len(store.segments(STREAM)))
    renaming.join()
    assert counts == {len(numbers)}
