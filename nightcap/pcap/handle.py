"""One live capture and the file that it is dumped to. No Python runs per packet.

The C function `pcap_dump` itself is the callback of `pcap_dispatch`. Handles never
block: a blocking `pcap_dispatch` does not come back from a quiet interface, nor for
a signal; the caller polls `LiveCapture.fd`.
"""

import ctypes
import os
import socket
import struct
from typing import Final, NamedTuple

from nightcap.pcap import libpcap
from nightcap.pcap.libpcap import FilterError, PcapError

RING_BYTES: Final = 2 * 2**20
BLOCK_BYTES: Final = 256 * 2**10
"""What libpcap makes rings of (TPACKET_V3): the kernel hands over one when it is full, or old."""
RETIRE_MS: Final = 100
"""The kernel hands over a block that is not full after this time."""
STDIO_BUFFER_BYTES: Final = 256 * 2**10
MAX_BATCH: Final = 4096
ANY: Final = "any"

_SO_ATTACH_FILTER = 26
_RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0


class NoSuchInterface(PcapError):
    """There is no such interface, or it is down; it may come."""


class NotPermitted(PcapError):
    """The process may not open packet sockets."""


class Stats(NamedTuple):
    """Since the handle was opened: what passed the filter, and what of it found no room."""

    received: int
    dropped: int


class LiveCapture:
    """An activated, filtered, non-blocking libpcap handle.

    Attributes:
        fd: Readable when packets wait.
        linktype: Of the packets, as libpcap numbers them.
        nanoseconds: Whether time stamps are in nanoseconds.
        ring_bytes: Of the ring that the kernel writes packets to.
    """

    def __init__(
        self,
        device: str,
        *,
        snap: int,
        expression: str,
        unless: str = "",
        ring_bytes: int = RING_BYTES,
    ) -> None:
        """Open; packets count from the moment the filter is in place.

        Args:
            device: An interface's name, or `any`.
            snap: Bytes kept of each packet.
            expression: Of pcap-filter(7); empty for every packet.
            unless: What is left out, whatever `expression` says.
            ring_bytes: Whole blocks of `BLOCK_BYTES`, at least two.

        Raises:
            NoSuchInterface, NotPermitted, FilterError, PcapError
        """
        self._pcap = libpcap.load()[0]
        buffer = ctypes.create_string_buffer(libpcap.ERROR_BUFFER_BYTES)
        handle = self._pcap.pcap_create(os.fsencode(device), buffer)
        if not handle:
            raise PcapError(buffer.value.decode("utf-8", "replace"))
        self._handle: int = handle
        try:
            self._configure(snap, ring_bytes)
            self._activate(device)
            self._set_filter(expression, unless)
            self._never_block()
        except BaseException:
            self._pcap.pcap_close(handle)
            raise
        self.fd: int = self._pcap.pcap_get_selectable_fd(handle)
        self.linktype: int = self._pcap.pcap_datalink(handle)
        precision = self._pcap.pcap_get_tstamp_precision(handle)
        self.nanoseconds: bool = precision == libpcap.NANOSECONDS
        self.ring_bytes = ring_bytes
        self._dump = ctypes.cast(self._pcap.pcap_dump, ctypes.c_void_p)
        self._dispatch = self._pcap.pcap_dispatch
        self._stats = Stats(0, 0)
        self._counted = Stats(0, 0)

    def _configure(self, snap: int, ring_bytes: int) -> None:
        self._pcap.pcap_set_snaplen(self._handle, snap)
        self._pcap.pcap_set_buffer_size(self._handle, ring_bytes)
        self._pcap.pcap_set_timeout(self._handle, RETIRE_MS)
        # Refused where the kernel's stamps are coarser; then microseconds stay.
        self._pcap.pcap_set_tstamp_precision(self._handle, libpcap.NANOSECONDS)

    def _activate(self, device: str) -> None:
        status = self._pcap.pcap_activate(self._handle)
        if status >= 0:
            if device == ANY:
                # The cooked header that carries the interface's number.
                self._pcap.pcap_set_datalink(self._handle, libpcap.LINUX_SLL2)
            return
        message = f"{device}: {libpcap.error_of(self._handle) or libpcap.status_text(status)}"
        if status in (libpcap.ERROR_NO_SUCH_DEVICE, libpcap.ERROR_NOT_UP):
            raise NoSuchInterface(message)
        if status == libpcap.ERROR_NO_PERMISSION:
            raise NotPermitted(message)
        raise PcapError(message)

    def _set_filter(self, expression: str, unless: str) -> None:
        program = libpcap.compile_on(self._handle, expression)
        if unless:
            # It has compiled alone: `a) or (b` cannot climb out of the parentheses. Ours comes
            # first because `vlan` moves the offsets of all that follows.
            self._pcap.pcap_freecode(ctypes.byref(program))
            whole = f"not ({unless})" + (f" and ({expression})" if expression.strip() else "")
            program = libpcap.compile_on(self._handle, whole)
        try:
            if self._pcap.pcap_setfilter(self._handle, ctypes.byref(program)) != 0:
                raise FilterError(libpcap.error_of(self._handle))
        finally:
            self._pcap.pcap_freecode(ctypes.byref(program))

    def _never_block(self) -> None:
        buffer = ctypes.create_string_buffer(libpcap.ERROR_BUFFER_BYTES)
        if self._pcap.pcap_setnonblock(self._handle, 1, buffer) != 0:
            raise PcapError(buffer.value.decode("utf-8", "replace"))

    def dispatch(self, most: int, file: "DumpFile") -> int:
        """Write at most so many waiting packets.

        Returns:
            Packets written; 0 when none wait.

        Raises:
            PcapError: the capture is broken, for example because the interface went.
        """
        count: int = self._dispatch(self._handle, most, self._dump, file.dumper)
        if count < 0:
            raise PcapError(libpcap.error_of(self._handle) or "capture was interrupted")
        return count

    def stats(self) -> Stats:
        """Counters of the kernel since the handle was opened.

        Ask at least once in some minutes: libpcap's have 32 bits and begin anew.
        """
        stat = libpcap.Stat()
        if self._pcap.pcap_stats(self._handle, ctypes.byref(stat)) == 0:
            now, (received, dropped) = Stats(stat.received, stat.dropped), self._counted
            self._stats = Stats(
                self._stats.received + (now.received - received) % 2**32,
                self._stats.dropped + (now.dropped - dropped) % 2**32,
            )
            self._counted = now
        return self._stats

    def silence(self) -> None:
        """Let no further packet in; what the kernel holds already still comes.

        Not by `pcap_setfilter`: libpcap would apply it to what waits in the ring, too.
        """
        instructions = ctypes.create_string_buffer(_RETURN_NOTHING, len(_RETURN_NOTHING))
        program = struct.pack("HP", 1, ctypes.addressof(instructions))
        with socket.socket(fileno=os.dup(self._pcap.pcap_fileno(self._handle))) as sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """Close; call once."""
        self._pcap.pcap_close(self._handle)


class DumpFile:
    """A pcap file that a `LiveCapture` writes.

    Attributes:
        dumper: libpcap's pointer, for `LiveCapture.dispatch`.
    """

    def __init__(self, capture: LiveCapture, fd: int) -> None:
        """Write the file header to `fd`, which then belongs to this object.

        Raises:
            PcapError
        """
        self._pcap, self._stdio = libpcap.load()
        size = min(STDIO_BUFFER_BYTES, capture.ring_bytes // 8)
        self._buffer = ctypes.create_string_buffer(size)
        self._ftell = self._pcap.pcap_dump_ftell
        file = self._stdio.fdopen(fd, b"wb")
        if not file:
            os.close(fd)
            raise PcapError("no memory for a file")
        self._file: int = file
        libpcap.never_lock(file)
        libpcap.fully_buffer(file, self._buffer)  # before the first write, or it has no effect
        self.dumper: int = self._pcap.pcap_dump_fopen(capture._handle, file)

    def position(self) -> int:
        """Bytes written, those still in the buffer included; always the end of a record."""
        position: int = self._ftell(self.dumper)
        return position

    def flush(self) -> bool:
        """Hand everything to the file system; False when it did not take it all."""
        flushed: int = self._pcap.pcap_dump_flush(self.dumper)
        return flushed == 0 and not self._stdio.ferror(self._file)

    def close(self) -> None:
        """Flush and close; call once."""
        self._pcap.pcap_dump_close(self.dumper)


def batch(position: int, packets: int, limit: int) -> int:
    """How many packets to ask for next, so that a file passes its limit by little.

    Args:
        position: Bytes in the file now.
        packets: Packets in the file now.
        limit: Bytes it should have at most.
    """
    if packets == 0:
        # Nothing is known of their size: begin with few.
        return max(1, min(64, (limit - position) // 2048))
    return max(1, min(MAX_BATCH, (limit - position) * packets // position + 1))
