"""The C half of the pump (`pump.c`), by ctypes: waits for packets and writes them."""

import ctypes
import errno
import math
import os
from collections.abc import Sequence
from ctypes import POINTER, c_int, c_int32, c_int64, c_short, c_uint32, c_uint64, c_void_p
from typing import Any, Final

from nightcap.pcap import libpcap

BUFFER_BYTES: Final = 64 * 2**10
"""More than this a write takes no less of the processor, and stays no longer in its caches."""
UNLIMITED: Final = 2**62
_NO_FILE: Final = -1
MARKS: Final = 32
"""So many ends of records are remembered between two decisions."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_POLLIN: Final = 1
_NEVER: Final = 2**63 - 1
_SIGNATURES: Final = (
    ("pump_take", c_int, (c_void_p,)),
    ("pump_flush", c_int, (c_void_p,)),
    ("pump_run", None, (c_void_p, c_uint32, c_void_p, c_uint32, c_int64)),
)


class Library(ctypes.Structure):
    """The functions of libpcap that it calls."""

    _fields_ = (("dispatch", c_void_p), ("breakloop", c_void_p))


class Budget(ctypes.Structure):
    """What all streams of one capture may still take together."""

    _fields_ = (("packets", c_int64), ("bytes", c_int64))
    packets: int
    bytes: int


class Inlet(ctypes.Structure):
    """`struct stream`: one interface and the segment that it fills."""

    _fields_ = (
        ("pcap", POINTER(Library)),
        ("handle", c_void_p),
        ("budget", POINTER(Budget)),
        ("buffer", c_void_p),
        ("room", c_uint64),
        ("held", c_uint64),
        ("position", c_uint64),
        ("packets", c_uint64),
        ("told", c_uint64),
        ("limit", c_uint64),
        ("mark_bytes", c_uint64),
        ("marked", c_uint64),
        ("missed", c_uint64),
        ("marks", c_uint64 * MARKS),
        ("flush_at", c_int64),
        ("end_at", c_int64),
        ("marks_made", c_uint32),
        ("file", c_int32),
        ("is_pipe", c_int32),
        ("is_wanted", c_int32),
        ("is_lost", c_int32),
        ("error", c_int32),
    )
    position: int
    packets: int
    told: int
    held: int
    missed: int
    limit: int
    marks_made: int
    file: int
    is_wanted: int
    is_lost: int
    error: int

    def __init__(
        self,
        handle: int,
        header: bytes,
        budget: Budget,
        *,
        mark_bytes: int = _NEVER,
        buffer_bytes: int = BUFFER_BYTES,
        is_pipe: bool = False,
    ) -> None:
        """Prepare; `begin` says where the packets go.

        Args:
            handle: libpcap's, which never blocks.
            header: How a file of its packets begins.
            budget: How many may come; kept, and counted down for each packet.
            mark_bytes: About so far apart the ends of records are remembered.
            buffer_bytes: So much is written at once.
            is_pipe: A signal may end the wait for whoever reads what is written.
        """
        buffer = ctypes.create_string_buffer(buffer_bytes)
        super().__init__(
            pcap=ctypes.pointer(_functions()),
            handle=handle,
            budget=ctypes.pointer(budget),
            buffer=ctypes.addressof(buffer),
            room=buffer_bytes,
            mark_bytes=mark_bytes,
            is_pipe=is_pipe,
            file=_NO_FILE,
            limit=_NEVER,
        )
        self._buffer = buffer
        self._header = header
        self._pump = load()

    def begin(self, fd: int) -> None:
        """Write to this file from now on, after a header of its own."""
        ctypes.memmove(self._buffer, self._header, len(self._header))
        self.file = fd
        self.held = self.position = self.told = self.marked = len(self._header)
        self.packets = self.marks_made = self.is_wanted = self.error = 0

    def take(self) -> None:
        """Write what waits."""
        self._pump.pump_take(ctypes.byref(self))

    def flush(self) -> bool:
        """Hand everything to the file system; False when it did not take it all.

        Then nothing of it is in the file, but in one that `is_pipe`, and no packet is taken before
        `retry`.
        """
        return bool(self._pump.pump_flush(ctypes.byref(self)) == 0)

    def retry(self) -> bool:
        """Go on after there was no room; False when that was not why nothing could be written."""
        if self.error in _NO_ROOM:
            self.error = 0
        return self.error == 0

    def pop_missed(self) -> int:
        """Packets that were let in and found no place since the last time."""
        missed, self.missed = self.missed, 0
        return missed

    def close(self) -> None:
        """Close the file; what is not flushed is lost."""
        os.close(self.file)
        self.file = _NO_FILE
        self.held = self.position = self.told = self.packets = self.marks_made = self.error = 0

    def is_due(self, now: float) -> bool:
        """Whether what was written should be flushed and told.

        Args:
            now: Monotonic clock.
        """
        is_time = now * 1e9 >= self.flush_at or self.marks_made == MARKS
        return (is_time and self.position != self.told) or self.error != 0

    def pop_marks(self) -> list[int]:
        """Ends of records since the last time."""
        made, self.marks_made = self.marks_made, 0
        return list(self.marks[:made])

    def due(self, flush_at: float, end_at: float) -> None:
        """When to come back.

        Args:
            flush_at: With packets that readers were not told of, by the monotonic clock.
            end_at: With any packets.
        """
        self.flush_at, self.end_at = _nanoseconds(flush_at), _nanoseconds(end_at)


class _PollFd(ctypes.Structure):
    """struct pollfd."""

    _fields_ = (("fd", c_int), ("events", c_short), ("revents", c_short))


class Watched:
    """Descriptors and inlets that are waited for together."""

    def __init__(self, others: Sequence[int], inlets: Sequence[tuple[int, Inlet]]) -> None:
        """Take note of them.

        Args:
            others: Descriptors whose readiness ends `run`.
            inlets: Each with the descriptor that tells that packets wait.
        """
        self._others = others
        fds = [*others, *(fd for fd, _ in inlets)]
        self._fds = (_PollFd * len(fds))(*(_PollFd(fd, _POLLIN, 0) for fd in fds))
        self._inlets = (POINTER(Inlet) * len(inlets))(*(ctypes.pointer(each) for _, each in inlets))
        self._run = load().pump_run

    def run(self, until: float) -> set[int]:
        """Write packets until an inlet has something to decide, or one of the others is ready.

        Args:
            until: Monotonic clock; not longer than that.

        Returns:
            Those of the others that are ready.
        """
        count = len(self._others)
        self._run(self._fds, count, self._inlets, len(self._inlets), _nanoseconds(until))
        return {each.fd for each in self._fds[:count] if each.revents}


def _nanoseconds(seconds: float) -> int:
    return _NEVER if math.isinf(seconds) else int(seconds * 1e9)


_loaded: Any = None
_used: Library | None = None


def _functions() -> Library:
    global _used
    if _used is None:
        pcap = libpcap.load()[0]
        _used = Library(
            ctypes.cast(pcap.pcap_dispatch, c_void_p), ctypes.cast(pcap.pcap_breakloop, c_void_p)
        )
    return _used


def load(path: str = "") -> Any:
    """The library, with its functions' types set.

    Args:
        path: Where it lies when it is used first; beside the folder of this module when empty.

    Raises:
        OSError: it is not there, or was built for another machine.
    """
    global _loaded
    if _loaded is None:
        library = ctypes.CDLL(path or f"{__file__.rsplit('/', 2)[0]}/pump.so")
        libpcap.declare(library, _SIGNATURES)
        _loaded = library
    return _loaded
