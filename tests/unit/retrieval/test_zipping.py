"""Zips by other readers' judgement, and parts of them."""

import io
import zipfile
from pathlib import Path
from zlib import crc32

from retrieval.files.zipping import Entry, Kind, Layout

AT_NS = 1_700_000_001 * 10**9


def write(layout: Layout, contents: dict[int, bytes], path: Path) -> None:
    """Write an archive; data that is not given stays a hole, which reads as zeros."""
    crcs = {index: crc32(content) for index, content in contents.items()}
    with path.open("wb") as file:
        for part in layout.parts:
            file.seek(part.begin)
            match part.kind:
                case Kind.HEADER:
                    file.write(layout.header(part.index))
                case Kind.DATA:
                    file.write(contents.get(part.index, b""))
                case Kind.CHECKSUM:
                    file.write(layout.checksum(part.index, crcs.get(part.index, 0)))
                case Kind.DIRECTORY:
                    count = sum(1 for each in layout.parts if each.kind is Kind.HEADER)
                    file.write(layout.directory([crcs.get(index, 0) for index in range(count)]))
            assert part.kind is Kind.DATA or file.tell() == part.end
    assert path.stat().st_size == layout.length


def test_above_four_gibibytes_and_behind_them_files_are_found(tmp_path: Path) -> None:
    """A sparse archive: its large file takes no room and its checksum is not looked at."""
    large, after = 5 * 2**30, b"the one behind it"
    layout = Layout(
        [
            Entry("first.pcap", 3, AT_NS),
            Entry("large.pcap", large, AT_NS),
            Entry("after.pcap", len(after), AT_NS),
        ]
    )
    path = tmp_path / "large.zip"
    write(layout, {0: b"abc", 2: after}, path)
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [3, large, len(after)]
        assert archive.read("first.pcap") == b"abc"
        assert archive.read("after.pcap") == after


def test_sizes_at_the_edge_of_zip64_are_right(tmp_path: Path) -> None:
    for size in (2**32 - 2, 2**32 - 1, 2**32):
        layout = Layout([Entry("a.pcap", size, AT_NS), Entry("b.pcap", 1, AT_NS)])
        path = tmp_path / "edge.zip"
        write(layout, {1: b"b"}, path)
        with zipfile.ZipFile(path) as archive:
            assert archive.getinfo("a.pcap").file_size == size
            assert archive.read("b.pcap") == b"b"


def test_more_files_than_sixteen_bits_count(tmp_path: Path) -> None:
    layout = Layout([Entry(f"{number}.pcap", 1, AT_NS) for number in range(65_536)])
    path = tmp_path / "many.zip"
    write(layout, dict.fromkeys(range(65_536), b"x"), path)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 65_536
        assert archive.read("65535.pcap") == b"x"


def test_names_and_times_are_kept(tmp_path: Path) -> None:
    name = "web-0_\u00e9th0-1700000001000000.pcap"
    path = tmp_path / "names.zip"
    write(Layout([Entry(name, 1, AT_NS), Entry("old", 1, 0)]), {0: b"x", 1: b"y"}, path)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [name, "old"]
        assert archive.getinfo(name).date_time == (2023, 11, 14, 22, 13, 20)
        assert archive.getinfo("old").date_time == (1980, 1, 1, 0, 0, 0)
