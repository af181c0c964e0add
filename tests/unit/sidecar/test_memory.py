import ctypes
from pathlib import Path

import pytest

from nightcap.pcap.handle import BLOCK_BYTES, RING_BYTES
from sidecar import memory
from sidecar.stream import RINGS_BYTES, ring_bytes

MAPS = """\
7f00-8000 r-xp 00001000 08:01 12 /usr/lib/libssl.so.3
8000-9000 r--p 00002000 08:01 12 /usr/lib/libssl.so.3
9000-a000 rw-p 00003000 08:01 12 /usr/lib/libssl.so.3
a000-b000 rw-p 00000000 00:00 0
b000-c000 r-xp 00000000 00:00 0 [vdso]
c000-d000 r-xs 00000000 08:01 13 /a file that is shared
d000-e000 r-xp 00000000 08:01 14 /opt/with blanks/python3
""".splitlines()


def test_only_code_of_files_is_given_back() -> None:
    assert memory.code(MAPS) == [(0x7F00, 0x8000), (0xD000, 0xE000)]


def test_what_was_given_back_comes_when_it_runs() -> None:
    before = Path("/proc/self/smaps_rollup").read_text()
    memory.give_back()
    after = Path("/proc/self/smaps_rollup").read_text()
    resident = [int(text.split("Rss:")[1].split()[0]) for text in (before, after)]
    assert resident[1] < resident[0]
    assert ctypes.CDLL(None).abs(-3) == 3


@pytest.mark.parametrize(
    ("wanted", "sizes"), [(1, [RING_BYTES]), (2, [6, 6]), (12, [2] * 12), (14, [2] * 12 + [0] * 2)]
)
def test_rings_that_are_opened_together_share(wanted: int, sizes: list[int]) -> None:
    rings: list[int] = []
    for number in range(wanted):
        rings.append(ring_bytes(sum(rings), wanted - number))
    assert rings == [size if size > BLOCK_BYTES else size * BLOCK_BYTES for size in sizes]
    assert sum(rings) <= RINGS_BYTES


def test_what_comes_later_finds_room() -> None:
    rings: list[int] = []
    while size := ring_bytes(sum(rings), 1):
        rings.append(size)
    assert [size // BLOCK_BYTES for size in rings] == [8, 5, 3, 2, 2, 2, 2]
