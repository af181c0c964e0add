"""The C half of the pump, with real libpcap reading from files as its source of packets."""

import ctypes
import errno
import hashlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.pcap import formats, libpcap
from nightcap.pcap.formats import Header, Record, pack_header, pack_record
from sidecar import libpump
from sidecar.libpump import BUFFER_BYTES, MARKS, UNLIMITED, Budget, Inlet, Watched
from tests import disks
from tests.netns.built import compile_pump

HEADER = Header(linktype=1, snaplen=262144, nanoseconds=True)
RECORD_HEADER = formats.RECORD_HEADER_BYTES
NOISE = hashlib.shake_128(b"noise").digest(2**19)
"""What packets hold: no two bytes after each other are the same for long."""
WITH_ADDRESSES = "NIGHTCAP_TEST_PUMP_ADDRESSES"
"""Set in the child that looks at addresses, which has the sanitizer loaded ahead of all else."""


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kind = "address,undefined" if WITH_ADDRESSES in os.environ else "undefined"
    built = tmp_path_factory.mktemp("pump") / "pump.so"
    compile_pump(built, "-Werror", "-O1", f"-fsanitize={kind}", "-fno-sanitize-recover=all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libpump, "_loaded", None)  # another test's, without sanitizers
        libpump.load(str(built))
        yield


def records(sizes: list[int]) -> list[bytes]:
    return [
        pack_record(HEADER, Record(10**18 + number, size + 1, NOISE[number : number + size]))
        for number, size in enumerate(sizes)
    ]


@dataclass
class Source:
    """A file that libpcap reads packets from, and a segment at a time that they are written to."""

    folder: Path
    inlet: Inlet
    fd: int
    made: int = 0
    handles: list[int] = field(default_factory=list)

    def begin(self) -> Path:
        path = self.folder / f"{self.made}.pcap"
        self.made += 1
        self.inlet.begin(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        return path

    def end(self) -> None:
        assert self.inlet.flush()
        self.inlet.close()


def a_source(folder: Path, data: bytes, budget: Budget | None = None, **options: int) -> Source:
    (folder / "source").write_bytes(pack_header(HEADER) + data)
    pcap = libpcap.load()[0]
    pcap.pcap_open_offline_with_tstamp_precision.restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(libpcap.ERROR_BUFFER_BYTES)
    handle = pcap.pcap_open_offline_with_tstamp_precision(
        os.fsencode(folder / "source"), libpcap.NANOSECONDS, error
    )
    assert handle, error.value
    inlet = Inlet(handle, pack_header(HEADER), budget or Budget(UNLIMITED, UNLIMITED), **options)
    # Always readable, as a ring is in which packets wait.
    return Source(folder, inlet, os.open("/dev/zero", os.O_RDONLY))


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    with TemporaryDirectory() as folder, disks.small_disk(Path(folder), "1m"):
        yield Path(folder)


@given(
    sizes=st.lists(st.integers(0, 300) | st.sampled_from([1400, 65535, 262144]), max_size=400),
    limit=st.sampled_from([100, 4096, BUFFER_BYTES, 10**6]),
)
def test_every_record_is_in_one_segment_as_it_was(sizes: list[int], limit: int) -> None:
    whole = records(sizes)
    with TemporaryDirectory() as name:
        source = a_source(Path(name), b"".join(whole))
        found, files = [], []
        while True:
            files.append(source.begin())
            source.inlet.limit = limit
            source.inlet.take()
            packets, position = source.inlet.packets, source.inlet.position
            source.end()
            data = files[-1].read_bytes()
            assert len(data) == position
            scan = formats.scan(io.BytesIO(data))
            assert (scan.packets, scan.damage) == (packets, "")
            found.append(data[formats.HEADER_BYTES :])
            if position < limit:
                break
        assert b"".join(found) == b"".join(whole)
        at = 0
        for data in found[:-1]:
            # It ends with the record that reaches the limit.
            last, size = 0, formats.HEADER_BYTES
            while size < limit:
                last = len(whole[at])
                size += last
                at += 1
            assert size == len(data) + formats.HEADER_BYTES


@given(
    sizes=st.lists(st.integers(0, 2000) | st.sampled_from([65535, 262144]), max_size=300),
    flushes=st.lists(st.booleans(), max_size=20),
    buffer=st.sampled_from([16 * 2**10, BUFFER_BYTES]),
)
def test_writes_end_at_multiples_of_the_buffer(
    sizes: list[int], flushes: list[bool], buffer: int
) -> None:
    written_in_pieces(sizes, flushes, buffer)


@pytest.mark.parametrize("before_it", range(RECORD_HEADER + 2))
def test_a_write_may_end_within_a_header(before_it: int) -> None:
    buffer = 16 * 2**10
    first = buffer - formats.HEADER_BYTES - RECORD_HEADER - before_it
    written_in_pieces([first, 100, 0, buffer], [], buffer)


def written_in_pieces(sizes: list[int], flushes: list[bool], buffer: int) -> None:
    """Take records in small turns, flush after some, and look at the file all the time."""
    whole = records(sizes)
    with TemporaryDirectory() as name:
        source = a_source(Path(name), b"".join(whole), buffer_bytes=buffer, mark_bytes=1000)
        path = source.begin()
        flushed = 0
        for flush in [*flushes, *[False] * len(sizes)]:
            source.inlet.take()
            source.inlet.pop_marks()
            written = path.stat().st_size
            assert written % buffer == 0 or written == flushed
            assert source.inlet.position - written < buffer
            if flush:
                assert source.inlet.flush()
                flushed = source.inlet.position
        # A worker that is killed here leaves a record that is torn, and all before it.
        left = path.read_bytes() or pack_header(HEADER)
        scan = formats.scan(io.BytesIO(left))
        assert len(left) - scan.end < RECORD_HEADER + max(sizes, default=0)
        assert b"".join(whole).startswith(left[formats.HEADER_BYTES : scan.end])
        source.end()
        assert path.read_bytes() == pack_header(HEADER) + b"".join(whole)


@pytest.mark.parametrize(
    ("packets", "bytes_", "taken"),
    [(7, UNLIMITED, 7), (UNLIMITED, 24 + 3 * 116, 3), (UNLIMITED, 24 + 3 * 116 + 1, 4), (0, 9, 0)],
)
def test_streams_of_a_capture_take_no_more_than_is_left(
    folder: Path, packets: int, bytes_: int, taken: int
) -> None:
    budget = Budget(packets, bytes_)
    sources = []
    for number in range(2):
        (folder / str(number)).mkdir()
        sources.append(a_source(folder / str(number), b"".join(records([100] * 5)), budget))
        sources[-1].begin()
    for source in sources:
        source.inlet.take()
    if bytes_ == UNLIMITED:
        assert sum(source.inlet.packets for source in sources) == taken
    else:
        assert [source.inlet.packets for source in sources] == [taken, 0]


def test_ends_of_records_are_remembered_until_there_is_no_more_room(folder: Path) -> None:
    source = a_source(folder, b"".join(records([84] * 1000)), mark_bytes=250)
    source.begin()
    source.inlet.take()
    marks = source.inlet.pop_marks()
    assert marks == [24 + 300 * (number + 1) for number in range(MARKS)]
    assert source.inlet.position == marks[-1]
    source.inlet.take()
    assert source.inlet.pop_marks()[0] == marks[-1] + 300


def test_a_file_that_takes_no_more_is_noticed_and_what_came_is_counted(folder: Path) -> None:
    source = a_source(folder, b"".join(records([1400] * 100)))
    source.inlet.begin(os.open("/dev/full", os.O_WRONLY))
    source.inlet.take()
    # A device cannot be cut, and so nothing may be written behind what it may have taken.
    assert source.inlet.error == errno.EIO
    assert source.inlet.packets == BUFFER_BYTES // (1400 + RECORD_HEADER)
    assert source.inlet.pop_missed() == 1
    assert source.inlet.pop_missed() == 0
    assert not source.inlet.flush()
    assert source.inlet.is_due(time.monotonic())
    assert not source.inlet.retry()


@pytest.mark.parametrize("free_pages", [0, 1, 7, 15, 16, 17, 40])
def test_where_there_was_no_room_it_goes_on_when_there_is(
    small_disk: Path, folder: Path, free_pages: int
) -> None:
    whole = records([1400] * 200)
    source = a_source(folder, b"".join(whole))
    source.folder = small_disk
    path = source.begin()
    free = os.statvfs(small_disk).f_bavail
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((free - free_pages) * 4096))
    while True:
        source.inlet.take()
        if not source.inlet.error:
            break
        assert source.inlet.error == errno.ENOSPC
        # Nothing of what was not taken whole is there.
        assert path.stat().st_size == source.inlet.position - source.inlet.held
        ballast.unlink(missing_ok=True)
        assert source.inlet.retry()
        assert source.inlet.flush()
    missed = source.inlet.pop_missed()
    assert (source.inlet.packets, missed) == (199, 1)
    source.end()
    found = path.read_bytes()
    assert formats.scan(io.BytesIO(found)).damage == ""
    before = free_pages * 4096 // BUFFER_BYTES * BUFFER_BYTES
    lost = (before + BUFFER_BYTES - formats.HEADER_BYTES) // (1400 + RECORD_HEADER)
    assert found == pack_header(HEADER) + b"".join(whole[:lost] + whole[lost + 1 :])


def test_a_source_that_breaks_is_lost_after_its_last_whole_packet(folder: Path) -> None:
    source = a_source(folder, b"".join(records([100] * 3))[:-1])
    source.begin()
    source.inlet.take()
    assert (source.inlet.is_lost, source.inlet.packets) == (1, 2)


def test_packets_without_a_segment_wait_until_there_is_one(folder: Path) -> None:
    source = a_source(folder, b"".join(records([100])))
    watched = Watched([], [(source.fd, source.inlet)])
    assert watched.run(float("inf")) == set()
    assert source.inlet.is_wanted
    source.begin()
    source.inlet.due(0, float("inf"))
    watched.run(float("inf"))
    assert (source.inlet.is_wanted, source.inlet.packets) == (0, 1)


@pytest.mark.parametrize(("flush_at", "end_at"), [(0.0, float("inf")), (float("inf"), 0.0)])
def test_it_comes_back_when_readers_wait_or_the_segment_is_old(
    folder: Path, flush_at: float, end_at: float
) -> None:
    source = a_source(folder, b"".join(records([100])))
    source.begin()
    source.inlet.due(flush_at, end_at)
    Watched([], [(source.fd, source.inlet)]).run(float("inf"))
    assert source.inlet.packets == 1


def test_it_tells_which_of_the_others_are_ready() -> None:
    pipes = [os.pipe() for _ in range(3)]
    watched = Watched([out for out, _ in pipes], [])
    assert watched.run(0) == set()
    os.write(pipes[1][1], b"x")
    assert watched.run(float("inf")) == {pipes[1][0]}
    for ends in pipes:
        for fd in ends:
            os.close(fd)


@pytest.mark.skipif(WITH_ADDRESSES in os.environ, reason="this is the child")
def test_it_stays_within_its_memory() -> None:
    """All of the above once more, with the address sanitizer watching libpcap, ctypes and it."""
    sanitizer = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={
            **os.environ,
            "LD_PRELOAD": sanitizer,
            "ASAN_OPTIONS": "detect_leaks=0",
            WITH_ADDRESSES: "1",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stdout + done.stderr
