from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from nightcap.cli.received import Damaged, Found, check_pcap, check_zip, replacing, save, unpack
from nightcap.pcap.formats import Header, Record, pack_header, pack_record

NAME = "web-1_eth0-1795371516141637.pcap"


def a_pcap(*payloads: bytes) -> bytes:
    header = Header(1, 262144, nanoseconds=False)
    records = (pack_record(header, Record(0, len(data), data)) for data in payloads)
    return pack_header(header) + b"".join(records)


def a_zip(files: dict[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def test_sound_zip_says_what_is_in_it_and_is_unpacked(tmp_path: Path) -> None:
    data = a_pcap(b"one", b"two")
    file = a_zip({NAME: data})
    assert check_zip(file) == [Found(NAME, len(data), 2)]
    unpack(file, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == data


@pytest.mark.parametrize(
    "name", ["../evil.pcap", "/etc/passwd", "a/b_eth0-1.pcap", ".._eth0-1.pcap", "meta.json"]
)
def test_name_that_is_no_capture_file_is_refused(name: str) -> None:
    with pytest.raises(Damaged, match="no name of a capture file"):
        check_zip(a_zip({name: a_pcap()}))


def test_changed_byte_is_found_by_the_checksum() -> None:
    payload = b"a payload to change"
    sent = a_zip({NAME: a_pcap(payload)}).getvalue()
    changed = sent.replace(payload, payload.replace(b"change", b"CHANGE"))
    with pytest.raises(Damaged, match="no whole zip: Bad CRC-32"):
        check_zip(io.BytesIO(changed))


def test_zip_that_broke_off_is_found() -> None:
    with pytest.raises(Damaged, match="no whole zip"):
        check_zip(io.BytesIO(a_zip({NAME: a_pcap(b"x" * 100)}).getvalue()[:-30]))


@pytest.mark.parametrize(
    ("data", "words"),
    [(a_pcap(b"abc")[:-1], "is cut off"), (b"<html>" * 9, "no pcap file"), (b"", "0 bytes")],
)
def test_unreadable_capture_is_found(data: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=words):
        check_pcap(NAME, io.BytesIO(data), len(data))
    with pytest.raises(Damaged, match=words):
        check_zip(a_zip({NAME: data}))


@pytest.mark.parametrize("announced", [5, 7])
def test_length_has_to_be_the_announced_one(announced: int) -> None:
    with pytest.raises(Damaged, match=f"6 bytes came, {announced} were announced"):
        save([b"abc", b"def"], announced, io.BytesIO(), lambda _size: None)


def test_saving_tells_how_far_it_is() -> None:
    told: list[int] = []
    assert save([b"abc", b"def"], 6, io.BytesIO(), told.append) == 6
    assert told == [3, 6]


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def write(data: bytes, then: type[BaseException] | None) -> None:
        with replacing(target) as file:
            file.write(data)
            if then is not None:
                raise then

    with pytest.raises(KeyboardInterrupt):
        write(b"half of the new", KeyboardInterrupt)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    write(b"new", None)
    assert target.read_bytes() == b"new"
