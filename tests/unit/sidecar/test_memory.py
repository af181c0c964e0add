import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.pcap.handle import BLOCK_BYTES, RING_BYTES
from sidecar import memory
from sidecar.stream import RINGS, RINGS_BYTES, ring_bytes

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


def opened(*together: int) -> list[int]:
    """Blocks of each ring, when so many are opened at once, then so many."""
    rings: list[int] = []
    for wanted in together:
        for number in range(wanted):
            if size := ring_bytes(rings, wanted - number):
                rings.append(size)
    assert sum(rings) <= RINGS_BYTES
    assert all(2 * BLOCK_BYTES <= size <= RING_BYTES for size in rings)
    return [size // BLOCK_BYTES for size in rings]


@pytest.mark.parametrize(
    ("together", "blocks"),
    [
        ([1], [8]),
        ([2], [6, 6]),
        ([8], [3] * 8),
        ([14], [2] * 12),
        ([1] * 14, [8, 4] + [2] * 6),
        ([2, 1], [6, 6, 2]),
    ],
)
def test_rings_share_what_there_is(together: list[int], blocks: list[int]) -> None:
    assert opened(*together) == blocks


@given(st.lists(st.integers(1, 8), min_size=8, max_size=12))
def test_eight_find_room_in_whatever_order_they_are_opened(together: list[int]) -> None:
    assert len(opened(*together)) >= RINGS
