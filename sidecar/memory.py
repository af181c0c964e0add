"""How the C library keeps memory: the worker is a guest in somebody's pod."""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8
_MADV_DONTNEED: Final = 4


def use_one_arena() -> None:
    """Give threads no heaps of their own: two threads that mostly wait have no need of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what is not in use to the kernel: freed memory, and programs' code.

    Imports and TLS leave a megabyte of the one and three of the other. What is still needed of the
    code is mapped again from the page cache when it runs.
    """
    c = ctypes.CDLL(None)
    malloc_trim = getattr(c, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for start, end in code(lines):
        c.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def code(maps: list[str]) -> list[tuple[int, int]]:
    """Where code is mapped that nobody can have written to: what leaves can come back.

    Args:
        maps: Lines of /proc/PID/maps. Read-only data is passed over, since some of it was written
            by the loader before it became read-only.
    """
    found = []
    for line in maps:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found
