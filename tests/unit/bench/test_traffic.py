"""The check of numbered packets: it has to notice what it is there for."""

import struct
from pathlib import Path

import pytest

from bench.traffic import Found, Traffic, find

TRAFFIC = Traffic(frame=64, rate=0, count=5)


def _file(path: Path, *numbers: int, frame: int = 64) -> Path:
    records = b"".join(
        struct.pack(f"<IIII42xQ{frame - 50}x", 1, 2, frame, frame, number) for number in numbers
    )
    path.write_bytes(bytes(24) + records)
    return path


def test_all_there_once_in_order(tmp_path: Path) -> None:
    files = [_file(tmp_path / "0", 0, 1), _file(tmp_path / "1", 2, 3, 4)]
    assert find(files, TRAFFIC) == Found(records=5, lost=0, twice=0, reordered=0)


def test_lost_twice_and_reordered_are_told_apart(tmp_path: Path) -> None:
    files = [_file(tmp_path / "0", 0, 2, 1), _file(tmp_path / "1", 2)]
    assert find(files, TRAFFIC) == Found(records=4, lost=2, twice=1, reordered=1)


def test_a_torn_or_a_foreign_record_is_an_error(tmp_path: Path) -> None:
    torn = _file(tmp_path / "0", 0, 1)
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no whole records"):
        find([torn], TRAFFIC)
    with pytest.raises(ValueError, match="nobody sent"):
        find([_file(tmp_path / "1", 5)], TRAFFIC)
