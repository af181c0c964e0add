from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from nightcap.cli.from_pods import NotExported, unpack
from nightcap.cli.received import Damaged
from nightcap.pcap.formats import Header, Record, pack_header, pack_record
from sidecar.export import export

HEADER = Header(1, 262144, nanoseconds=True)


def a_segment(first_us: int, *data: bytes) -> bytes:
    return pack_header(HEADER) + b"".join(
        pack_record(HEADER, Record(first_us * 1000, len(each), each)) for each in data
    )


def an_archive(folder: Path) -> io.BytesIO:
    """What the sidecar really writes."""
    to = io.BytesIO()
    export(folder, to)
    to.seek(0)
    return to


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    for interface in ("eth0", "net1"):
        (folder / interface).mkdir(parents=True)
    return folder


def test_segments_become_files_as_retrieval_names_them(spool: Path, tmp_path: Path) -> None:
    (spool / "eth0" / "00000000.pcap").write_bytes(a_segment(5, b"one", b"two"))
    (spool / "eth0" / "00000001.pcap.part").write_bytes(a_segment(5, b"three", b"cut")[:-1])
    (spool / "net1" / "00000007.pcap").write_bytes(a_segment(9, b"four"))
    (spool / "eth0" / "00000002.pcap.part").write_bytes(a_segment(0))
    (spool / "state.json").write_text("{}")
    to = tmp_path / "to"
    to.mkdir()
    found = unpack("web-1", an_archive(spool), to)
    assert {file.name: file.packets for file in found} == {
        "web-1_eth0-5.pcap": 2,
        "web-1_eth0-6.pcap": 1,
        "web-1_net1-9.pcap": 1,
    }
    assert {path.name for path in to.iterdir()} == {file.name for file in found}
    assert (to / "web-1_eth0-6.pcap").read_bytes() == a_segment(5, b"three")


def test_capture_without_segments_gives_none(tmp_path: Path) -> None:
    assert unpack("web-1", an_archive(tmp_path / "none"), tmp_path) == []


def a_tar(**members: bytes) -> io.BytesIO:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    to.seek(0)
    return to


INDEX = {"export.json": b'{"v": 1, "segments": 1}'}


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        pytest.param(a_tar(**INDEX, **{"../../00000000.pcap": a_segment(1, b"x")}),
                     "no path of a segment", id="path"),
        pytest.param(a_tar(**INDEX, **{"eth0/evil.sh": b"x"}), "no path of a segment", id="name"),
        pytest.param(a_tar(**INDEX, **{"eth0/00000000.pcap": b"junk" * 99}), "no pcap", id="junk"),
        pytest.param(a_tar(**INDEX, **{"eth0/00000000.pcap": a_segment(1, b"x")[:-1]}),
                     "cut off", id="cut"),
        pytest.param(a_tar(**{"eth0/00000000.pcap": a_segment(1, b"x")}),
                     "does not begin", id="index"),
        pytest.param(io.BytesIO(b"no tar" * 200), "no whole archive", id="no tar"),
        pytest.param(io.BytesIO(a_tar(**INDEX).getvalue()[:700]), "no whole archive", id="half"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused(archive: io.BytesIO, words: str, tmp_path: Path) -> None:
    archive.seek(0)
    with pytest.raises(Damaged, match=words):
        unpack("web-1", archive, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_older_sidecar_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotExported, match="cannot export"):
        unpack("web-1", io.BytesIO(b""), tmp_path)
