"""What people run in a container by exec: `errand stream` and `errand export`."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightcap.contract.orders import Limit, Rotation
from nightcap.contract.streaming import EXPORT_INDEX, STREAM_OPEN, STREAM_OVER, Stream, dump_stream
from nightcap.pcap.formats import PcapReader
from tests.netns.pods import ID, Pod, an_order, wait_for
from tests.netns.written import numbers

pytestmark = pytest.mark.netns


@contextmanager
def streaming(pod: Pod, errand: Path, stream: Stream) -> "Iterator[subprocess.Popen[bytes]]":
    """As in an ephemeral container: root with one capability, and pipes."""
    command = [str(errand), "stream", dump_stream(stream)]
    with subprocess.Popen(
        pod.link.pod.command("setpriv", "--bounding-set", "-all,+net_raw", *command),
        env=pod.variables() | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        assert (first["event"], first["interface"]) == (STREAM_OPEN, "eth0")
        yield process
        process.kill()


def last_word(process: "subprocess.Popen[bytes]") -> dict[str, object]:
    assert process.stderr is not None
    said: dict[str, object] = json.loads(process.stderr.read().splitlines()[-1])
    assert said["event"] == STREAM_OVER
    return said


def test_stream_gives_packets_at_once_and_ends_with_its_caller(pod: Pod, errand: Path) -> None:
    with streaming(pod, errand, Stream(60, "udp dst port 5353")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pod.link.send(5)
        records = iter(PcapReader(io.BufferedReader(process.stdout.raw)))  # type: ignore[attr-defined]
        got = [int.from_bytes(next(records).data[42:50], "big") for _ in range(5)]
        assert got == list(range(5))
        process.stdin.close()
        assert process.wait(10) == 0
        assert last_word(process)["packets"] == 5


def test_stream_ends_when_its_time_is_over(pod: Pod, errand: Path) -> None:
    with streaming(pod, errand, Stream(1)) as process:
        assert process.wait(10) == 0
        assert last_word(process)["reason"] == "time"


def test_stream_ends_when_nobody_reads(pod: Pod, errand: Path) -> None:
    with streaming(pod, errand, Stream(60, "udp dst port 5353")) as process:
        assert process.stdout is not None
        process.stdout.close()
        pod.link.send(5)
        assert process.wait(10) == 0
        assert last_word(process)["reason"] == "left"


def test_stream_refuses_what_it_cannot_do(pod: Pod, errand: Path) -> None:
    def said(argument: str) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            pod.link.pod.command(str(errand), "stream", argument),
            env=pod.variables() | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.stdout == b""
        return done.returncode, json.loads(done.stderr.splitlines()[0])

    code, line = said(dump_stream(Stream(5, "udp port (")))
    assert (code, line["event"]) == (1, "capture failed")
    assert "syntax error" in str(line["message"])
    code, line = said('{"seconds": 0}')
    assert (code, line["event"]) == (2, "bad request")


def exported(pod: Pod, errand: Path, capture: str) -> dict[str, bytes]:
    done = subprocess.run(
        [errand, "export", capture], env=pod.variables(), capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
        return found


def test_export_gives_what_the_spool_holds_while_it_is_written(pod: Pod, errand: Path) -> None:
    rotation = Rotation(max_bytes=4096, max_files=100)
    pod.order(an_order(rotation=rotation, limit=Limit(bytes=0, packets=0)))
    pod.start()
    pod.wait_open()
    pod.link.send(100, size=200)
    folder = pod.spool / ID / "eth0"
    wait_for(lambda: len(list(folder.glob("*.pcap"))) >= 5, "segments")
    # The last one is flushed every half second; then all is there.
    wait_for(lambda: len(numbers(*files(exported(pod, errand, ID)).values())) == 100, "packets")
    found = exported(pod, errand, ID)
    assert json.loads(found[EXPORT_INDEX])["segments"] == len(found) - 1
    assert sorted(files(found)) == [f"eth0/{seq:08d}.pcap" for seq in range(len(found) - 1)]
    assert numbers(*files(found).values()) == list(range(100))
    # A record that is half there is not given.
    part = next(iter(folder.glob("*.pcap.part")), None)
    assert part is not None
    pod.kill()
    part.write_bytes(part.read_bytes()[:-3])
    assert numbers(*files(exported(pod, errand, ID)).values()) == list(range(99))


def files(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in found.items() if name != EXPORT_INDEX}


def test_export_of_an_unknown_capture_is_empty_and_paths_are_refused(
    pod: Pod, errand: Path
) -> None:
    unknown = "ffffffff-0000-4000-8000-000000000000"
    assert json.loads(exported(pod, errand, unknown)[EXPORT_INDEX])["segments"] == 0
    for evil in ("..", "../../etc", ""):
        done = subprocess.run(
            [errand, "export", evil], env=pod.variables(), capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, b"")
