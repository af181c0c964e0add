"""One live capture. Whoever reads its packets does so in C, and not for each in Python.

Handles never block: a blocking `pcap_dispatch` does not come back from a quiet
interface, nor for a signal; the reader polls `LiveCapture.fd`.
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
        handle: libpcap's pointer.
        fd: Readable when packets wait.
        header: How a file of these packets begins.
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
        self.handle: int = handle
        try:
            self._configure(snap, ring_bytes)
            self._activate(device)
            self._set_filter(expression, unless)
            self._never_block()
            self.header = self._file_header()
        except BaseException:
            self._pcap.pcap_close(handle)
            raise
        self.fd: int = self._pcap.pcap_get_selectable_fd(handle)
        self.linktype: int = self._pcap.pcap_datalink(handle)
        precision = self._pcap.pcap_get_tstamp_precision(handle)
        self.nanoseconds: bool = precision == libpcap.NANOSECONDS
        self.ring_bytes = ring_bytes
        self._stats = Stats(0, 0)
        self._counted = Stats(0, 0)

    def _configure(self, snap: int, ring_bytes: int) -> None:
        self._pcap.pcap_set_snaplen(self.handle, snap)
        self._pcap.pcap_set_buffer_size(self.handle, ring_bytes)
        self._pcap.pcap_set_timeout(self.handle, RETIRE_MS)
        # Refused where the kernel's stamps are coarser; then microseconds stay.
        self._pcap.pcap_set_tstamp_precision(self.handle, libpcap.NANOSECONDS)

    def _activate(self, device: str) -> None:
        status = self._pcap.pcap_activate(self.handle)
        if status >= 0:
            if device == ANY:
                # The cooked header that carries the interface's number.
                self._pcap.pcap_set_datalink(self.handle, libpcap.LINUX_SLL2)
            return
        message = f"{device}: {libpcap.error_of(self.handle) or libpcap.status_text(status)}"
        if status in (libpcap.ERROR_NO_SUCH_DEVICE, libpcap.ERROR_NOT_UP):
            raise NoSuchInterface(message)
        if status == libpcap.ERROR_NO_PERMISSION:
            raise NotPermitted(message)
        raise PcapError(message)

    def _set_filter(self, expression: str, unless: str) -> None:
        program = libpcap.compile_on(self.handle, expression)
        if unless:
            # It has compiled alone: `a) or (b` cannot climb out of the parentheses. Ours comes
            # first because `vlan` moves the offsets of all that follows.
            self._pcap.pcap_freecode(ctypes.byref(program))
            whole = f"not ({unless})" + (f" and ({expression})" if expression.strip() else "")
            program = libpcap.compile_on(self.handle, whole)
        try:
            if self._pcap.pcap_setfilter(self.handle, ctypes.byref(program)) != 0:
                raise FilterError(libpcap.error_of(self.handle))
        finally:
            self._pcap.pcap_freecode(ctypes.byref(program))

    def _never_block(self) -> None:
        buffer = ctypes.create_string_buffer(libpcap.ERROR_BUFFER_BYTES)
        if self._pcap.pcap_setnonblock(self.handle, 1, buffer) != 0:
            raise PcapError(buffer.value.decode("utf-8", "replace"))

    def _file_header(self) -> bytes:
        # In libpcap's own words: link types have other numbers in files than in memory.
        stdio = libpcap.load()[1]
        out, into = os.pipe2(os.O_CLOEXEC)
        try:
            file = stdio.fdopen(into, b"wb")
            dumper = file and self._pcap.pcap_dump_fopen(self.handle, file)
            if not dumper:
                os.close(into)
                raise PcapError(self.error() or "no memory for a file")
            self._pcap.pcap_dump_close(dumper)
            return os.read(out, 4096)
        finally:
            os.close(out)

    def error(self) -> str:
        """What libpcap last said."""
        return libpcap.error_of(self.handle)

    def stats(self) -> Stats:
        """Counters of the kernel since the handle was opened.

        Ask at least once in some minutes: libpcap's have 32 bits and begin anew.
        """
        stat = libpcap.Stat()
        if self._pcap.pcap_stats(self.handle, ctypes.byref(stat)) == 0:
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
        with socket.socket(fileno=os.dup(self._pcap.pcap_fileno(self.handle))) as sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """Close; call once."""
        self._pcap.pcap_close(self.handle)
