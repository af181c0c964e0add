"""A filter over packets that were captured before; no Python runs per packet.

libpcap reads a piece of a file out of memory, filters, and its own `pcap_dump` writes
what passes to memory again.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Final

from nightcap.pcap import libpcap
from nightcap.pcap.formats import HEADER_BYTES, MAX_RECORD_BYTES, Header, pack_header
from nightcap.pcap.libpcap import PcapError

_OFFLINE: Final = (
    ("pcap_fopen_offline_with_tstamp_precision", c_void_p, (c_void_p, c_uint, c_char_p)),
)
_MEMORY: Final = (
    ("fmemopen", c_void_p, (c_void_p, c_size_t, c_char_p)),
    ("open_memstream", c_void_p, (POINTER(c_void_p), POINTER(c_size_t))),
    ("fclose", c_int, (c_void_p,)),
    ("free", None, (c_void_p,)),
)


class OfflineFilter:
    """A compiled filter for packets of one link type.

    Whoever must stay alive has it checked first (`nightcap.pcap.bounded`), for this link type.
    """

    def __init__(self, expression: str, linktype: int) -> None:
        """Compile.

        Raises:
            FilterError: in libpcap's own words, or because the program is too long.
        """
        self._pcap, self._memory = libpcap.load()
        libpcap.declare(self._pcap, _OFFLINE)
        libpcap.declare(self._memory, _MEMORY)
        self._linktype = linktype
        handle = self._pcap.pcap_open_dead(linktype, MAX_RECORD_BYTES)
        if not handle:
            raise PcapError("libpcap has no memory left")
        try:
            self._program = libpcap.compile_on(handle, expression)
        finally:
            self._pcap.pcap_close(handle)

    def close(self) -> None:
        """Free the program; call once."""
        self._pcap.pcap_freecode(byref(self._program))

    def keep(self, records: bytes, header: Header) -> bytes:
        """Those of whole records that pass, in this machine's byte order.

        Args:
            records: Whole records; `nightcap.pcap.formats.record_boundary` finds their end.
            header: Of the file that they are from.

        Raises:
            PcapError: libpcap cannot read them.
        """
        # The link type is that of the filter: libpcap maps some numbers to others.
        start = Header(self._linktype, MAX_RECORD_BYTES, header.nanoseconds, header.byte_order)
        data = pack_header(start) + records
        # Reads only, so that the bytes need no copy.
        file = self._memory.fmemopen(data, len(data), b"rb")
        if not file:
            raise PcapError("no memory left for a filter")
        buffer = ctypes.create_string_buffer(libpcap.ERROR_BUFFER_BYTES)
        handle = self._pcap.pcap_fopen_offline_with_tstamp_precision(
            file, int(header.nanoseconds), buffer
        )
        if not handle:
            self._memory.fclose(file)
            raise PcapError(buffer.value.decode("utf-8", "replace"))
        try:
            return self._filtered(handle)
        finally:
            self._pcap.pcap_close(handle)  # the file with it

    def _filtered(self, handle: int) -> bytes:
        if self._pcap.pcap_setfilter(handle, byref(self._program)) != 0:
            raise PcapError(libpcap.error_of(handle))
        address, size = c_void_p(), c_size_t()
        written = self._memory.open_memstream(byref(address), byref(size))
        if not written:
            raise PcapError("no memory left for a filter")
        dumper = self._pcap.pcap_dump_fopen(handle, written)
        if not dumper:
            self._memory.fclose(written)
            self._memory.free(address)
            raise PcapError(libpcap.error_of(handle))
        dump = ctypes.cast(self._pcap.pcap_dump, c_void_p)
        count = self._pcap.pcap_dispatch(handle, -1, dump, dumper)
        self._pcap.pcap_dump_close(dumper)
        try:
            if count < 0:
                raise PcapError(libpcap.error_of(handle))
            return ctypes.string_at(address, size.value)[HEADER_BYTES:]
        finally:
            self._memory.free(address)
