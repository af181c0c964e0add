"""How the C library keeps memory: the worker is a guest in somebody's pod."""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8


def use_one_arena() -> None:
    """Give threads no heaps of their own: two threads that mostly wait have no need of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return freed memory to the kernel; imports and TLS leave a megabyte of it."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))
