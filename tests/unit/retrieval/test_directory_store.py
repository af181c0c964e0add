import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightcap.contract.segments import StreamKey
from retrieval.store.base import OffsetConflict, StoreFailed, StoreFull, Tally
from retrieval.store.directory import ReadableDirectory
from retrieval.store.writing import DirectoryStore
from tests.disks import small_disk
from tests.unit.retrieval.builders import CAPTURE, META, STREAM, a_key, a_pcap, content


@pytest.fixture
def stream(directory: DirectoryStore) -> StreamKey:
    directory.create_stream(STREAM, META)
    return STREAM


@pytest.mark.usefixtures("stream")
def test_a_growing_segment_has_another_name_until_it_is_complete_and_safe(
    directory: DirectoryStore,
) -> None:
    folder = directory.root / STREAM.path / "eth0"
    directory.append(a_key(), 0, a_pcap(), complete=False)
    directory.wait_durable(a_key(), len(a_pcap()), 5)
    assert [path.name for path in folder.iterdir()] == ["00000001.pcap.part"]
    state = directory.append(a_key(), len(a_pcap()), b"", complete=True)
    # All bytes were safe already; its end is not, and until then somebody must keep it.
    assert state.durable < len(a_pcap())
    assert directory.wait_durable(a_key(), len(a_pcap()), 5) == len(a_pcap())
    assert [path.name for path in folder.iterdir()] == ["00000001.pcap"]


@pytest.mark.usefixtures("stream")
def test_many_segments_become_safe_in_few_commits(
    directory: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(fd), real(fd))[1])
    for _ in range(10):
        for seq in range(20):
            size = directory.segment(a_key(seq)).size
            directory.append(a_key(seq), size, b"1234", complete=False)
    for seq in range(20):
        assert directory.wait_durable(a_key(seq), 40, 5) == 40
    assert len(calls) < 200


@pytest.mark.usefixtures("stream")
def test_bytes_that_the_disk_refused_to_keep_are_gone_and_never_called_durable(
    directory: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the kernel forgets what it could not write, and so must we."""
    directory.append(a_key(), 0, b"12345", complete=False)
    directory.wait_durable(a_key(), 5, 5)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        directory.append(a_key(), 5, b"6789", complete=True)
        with pytest.raises(StoreFailed, match="Input/output error"):
            directory.wait_durable(a_key(), 9, 5)
    assert directory.segment(a_key()).size == 5
    directory.append(a_key(), 5, b"6789", complete=True)
    assert directory.wait_durable(a_key(), 9, 5) == 9
    assert content(directory) == b"123456789"


@pytest.mark.usefixtures("stream")
def test_a_folder_that_could_not_be_made_safe_is_tried_again(
    directory: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("retrieval.store.writing.fsync_folder", fail)
        directory.append(a_key(), 0, b"12345", complete=False)
        with pytest.raises(StoreFailed):
            directory.wait_durable(a_key(), 5, 5)
    synced: list[Path] = []
    monkeypatch.setattr("retrieval.store.writing.fsync_folder", synced.append)
    assert directory.wait_durable(a_key(), 5, 5) == 5
    assert directory.root / STREAM.path / "eth0" in synced


@pytest.mark.usefixtures("stream")
def test_an_empty_file_that_a_crash_left_is_written_on(directory: DirectoryStore) -> None:
    folder = directory.root / STREAM.path / "eth0"
    folder.mkdir()
    (folder / "00000001.pcap.part").touch()
    assert directory.segment(a_key()).size == 0
    directory.append(a_key(), 0, b"12345", complete=True)
    assert directory.wait_durable(a_key(), 5, 5) == 5


@pytest.mark.usefixtures("stream")
def test_a_file_that_the_other_program_deleted_starts_anew(directory: DirectoryStore) -> None:
    directory.append(a_key(), 0, b"12345", complete=False)
    directory.wait_durable(a_key(), 5, 5)
    ReadableDirectory(directory.root).delete_segment(a_key())
    with pytest.raises(OffsetConflict) as refused:
        directory.append(a_key(), 5, b"6", complete=False)
    assert refused.value.segment.size == 0
    assert directory.recount() == ()  # nobody had asked how much there is
    assert directory.tally(STREAM) == Tally(0, 0)


def test_what_is_not_ours_on_the_volume_is_passed_over(directory: DirectoryStore) -> None:
    for path in ("lost+found", "storefront/lost+found", ".snapshot/abc", "storefront/abc/x"):
        (directory.root / path).mkdir(parents=True)
    (directory.root / "storefront" / "abc" / "note.txt").write_text("hello")
    (directory.root / STREAM.path / "eth0").mkdir(parents=True)
    for name in ("1.pcap", "00000001.pcap.bak", "00000002.pcap,new", "core"):
        (directory.root / STREAM.path / "eth0" / name).write_text("hello")
    assert sorted(directory.captures()) == [("storefront", "abc"), ("storefront", CAPTURE)]
    assert directory.streams("storefront", "abc") == ()
    assert directory.segments(STREAM) == ()


def test_a_link_in_place_of_a_segment_is_not_followed(directory: DirectoryStore) -> None:
    folder = directory.root / STREAM.path / "eth0"
    folder.mkdir(parents=True)
    (folder / "00000001.pcap").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic"):
        directory.open(a_key())


def test_a_store_without_a_directory_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="mount a volume there"):
        DirectoryStore(tmp_path / "absent").start()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[DirectoryStore]:
    """A store on a file system of one mebibyte."""
    root = tmp_path / "tiny"
    root.mkdir()
    with small_disk(root, "1m"):
        opened = DirectoryStore(root, commit_seconds=0.002)
        opened.start()
        yield opened
        opened.close()


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
