"""The C half of the pump, with real libpcap reading from files as its source of packets."""

import ctypes
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
from tests.netns.built import compile_pump

HEADER = Header(linktype=1, snaplen=262144, nanoseconds=True)
RECORD_HEADER = formats.RECORD_HEADER_BYTES
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
        pack_record(HEADER, Record(10**18 + number, size + 1, bytes([number % 256]) * size))
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
            # What is in the file before it is flushed is whole, too: so a killed worker leaves it.
            before = files[-1].read_bytes()
            if before:
                scan = formats.scan(io.BytesIO(before))
                assert (scan.damage, scan.end) == ("", len(before))
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
    assert source.inlet.error
    assert 1400 * source.inlet.packets > BUFFER_BYTES
    assert not source.inlet.flush()
    assert source.inlet.is_due(time.monotonic())


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
