"""The part of libpcap that Nightcap calls, by ctypes; loaded on first use.

Every function has its types declared: without them ctypes cuts pointers to int.
Calls release the interpreter's lock while they run.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_uint, c_void_p
from typing import Final

EN10MB: Final = 1
LINUX_SLL2: Final = 276
MAX_INSTRUCTIONS: Final = 4096
ERROR_BUFFER_BYTES: Final = 256
NETMASK_UNKNOWN: Final = 0xFFFFFFFF
NANOSECONDS: Final = 1

ERROR_NO_SUCH_DEVICE: Final = -5
ERROR_NO_PERMISSION: Final = -8
ERROR_NOT_UP: Final = -9

_NAMES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")


class PcapError(Exception):
    """libpcap could not do it; the message is its own."""


class FilterError(PcapError):
    """A filter that does not compile, in libpcap's own words."""


class Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", c_uint), ("instructions", c_void_p))


class Stat(ctypes.Structure):
    """struct pcap_stat."""

    _fields_ = (("received", c_uint), ("dropped", c_uint), ("dropped_by_interface", c_uint))


_SIGNATURES: Final = (
    ("pcap_open_dead", c_void_p, (c_int, c_int)),
    ("pcap_create", c_void_p, (c_char_p, c_char_p)),
    ("pcap_set_snaplen", c_int, (c_void_p, c_int)),
    ("pcap_set_buffer_size", c_int, (c_void_p, c_int)),
    ("pcap_set_timeout", c_int, (c_void_p, c_int)),
    ("pcap_set_tstamp_precision", c_int, (c_void_p, c_int)),
    ("pcap_get_tstamp_precision", c_int, (c_void_p,)),
    ("pcap_activate", c_int, (c_void_p,)),
    ("pcap_set_datalink", c_int, (c_void_p, c_int)),
    ("pcap_datalink", c_int, (c_void_p,)),
    ("pcap_compile", c_int, (c_void_p, POINTER(Program), c_char_p, c_int, c_uint)),
    ("pcap_setfilter", c_int, (c_void_p, POINTER(Program))),
    ("pcap_freecode", None, (POINTER(Program),)),
    ("pcap_setnonblock", c_int, (c_void_p, c_int, c_char_p)),
    ("pcap_get_selectable_fd", c_int, (c_void_p,)),
    ("pcap_fileno", c_int, (c_void_p,)),
    ("pcap_dispatch", c_int, (c_void_p, c_int, c_void_p, c_void_p)),
    ("pcap_stats", c_int, (c_void_p, POINTER(Stat))),
    ("pcap_geterr", c_char_p, (c_void_p,)),
    ("pcap_statustostr", c_char_p, (c_int,)),
    ("pcap_close", None, (c_void_p,)),
    ("pcap_breakloop", None, (c_void_p,)),
    ("pcap_dump_fopen", c_void_p, (c_void_p, c_void_p)),
    ("pcap_dump_close", None, (c_void_p,)),
)
_STDIO_SIGNATURES: Final = (("fdopen", c_void_p, (c_int, c_char_p)),)

_libraries: tuple[ctypes.CDLL, ctypes.CDLL] | None = None


def load() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Libpcap and the C library, with their functions' types set.

    Raises:
        PcapError: this machine has no libpcap.
    """
    global _libraries
    if _libraries is None:
        pcap, stdio = _open_library(), ctypes.CDLL(None)
        declare(pcap, _SIGNATURES)
        declare(stdio, _STDIO_SIGNATURES)
        _libraries = pcap, stdio
    return _libraries


def _open_library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise PcapError(f"libpcap is not installed (looked for {', '.join(_NAMES)})")


def declare(
    library: ctypes.CDLL, signatures: tuple[tuple[str, object, tuple[object, ...]], ...]
) -> None:
    """Set the types of functions: (name, result, arguments) of each."""
    for name, result, arguments in signatures:
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


def error_of(handle: int) -> str:
    """What libpcap last said about this handle."""
    return _text(load()[0].pcap_geterr(handle))


def status_text(status: int) -> str:
    """What a status of pcap_activate means."""
    return _text(load()[0].pcap_statustostr(status))


def _text(message: bytes | None) -> str:
    return (message or b"").decode("utf-8", "replace").strip()


def compile_on(handle: int, expression: str) -> Program:
    """Compile for an open handle; the caller frees the program.

    Raises:
        FilterError: in libpcap's own words, or because the program is too long.
    """
    pcap = load()[0]
    if "\0" in expression:
        raise FilterError("a filter cannot hold the character NUL")
    program = Program()
    text = expression.encode("utf-8", "surrogateescape")
    if pcap.pcap_compile(handle, ctypes.byref(program), text, 1, NETMASK_UNKNOWN) != 0:
        raise FilterError(error_of(handle))
    if program.length > MAX_INSTRUCTIONS:
        length = program.length
        pcap.pcap_freecode(ctypes.byref(program))
        raise FilterError(f"filter takes {length} instructions; at most {MAX_INSTRUCTIONS} run")
    return program


def compile_filter(expression: str, snap: int = 262144, linktype: int = EN10MB) -> None:
    """Compile without any interface, to see whether it compiles.

    Nobody who must stay alive calls this with a stranger's expression: `bounded` does it in a
    process of its own.

    Raises:
        FilterError: in libpcap's own words, or because the program is too long.
    """
    pcap = load()[0]
    handle = pcap.pcap_open_dead(linktype, snap)
    if not handle:
        raise PcapError("libpcap has no memory left")
    try:
        program = compile_on(handle, expression)
        pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)
