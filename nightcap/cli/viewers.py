"""Where packets go as they arrive: a program that shows them, our own lines, a file or a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from nightcap.cli.session import Fault

if TYPE_CHECKING:
    import subprocess

STDOUT: Final = "-"
WIRESHARK: Final = "wireshark"
TSHARK: Final = "tshark"
TEXT: Final = "text"
CHOICES: Final = (WIRESHARK, TSHARK, TEXT)
_END_SECONDS: Final = 5
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_HEAD_BYTES: Final = 28
"""Of pcap the file header, of pcapng the least that a section header can have."""
_COLUMNS: Final = (
    '"Time","%t","Pod","%Cus:frame.interface_name","Source","%s","Destination","%d",'
    '"Protocol","%p","Info","%i"'
)
# Names: those that came along, of pods and services, and no question to a name server. Wireshark
# shows none by default; what it shows of Ethernet's addresses stays as it is.
# `-r` and not `-i`: that would start dumpcap, which not everybody may run.
_ARGUMENTS: Final = {
    WIRESHARK: ("-k", "-N", "mn", "-i", "-"),
    TSHARK: ("-l", "-N", "n", "-o", f"gui.column.format:{_COLUMNS}", "-r", "-"),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A program that reads packets from its standard input."""

    arguments: tuple[str, ...]
    has_window: bool


@dataclass(frozen=True, slots=True)
class Text:
    """Our own lines."""


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes as they come, into a file or (`-`) standard output."""

    target: str


Viewer = Program | Text | Raw


def choose(
    wanted: str | None, write: str | None, *, terminal: bool, find: Callable[[str], str | None]
) -> Viewer:
    """How packets are to be shown.

    Args:
        wanted: What `--with` says.
        write: What `-w` says.
        terminal: Whether standard output is one.
        find: Where a program of this name is; None if it is not on the `PATH`.

    Raises:
        Fault: the program that is wanted is not there.
    """
    if write is not None:
        return Raw(write)
    if wanted is None:
        if not terminal:
            return Raw(STDOUT)
        wanted = TSHARK if find(TSHARK) else TEXT
    if wanted == TEXT:
        return Text()
    binary = find(wanted)
    if binary is None:
        raise Fault(
            f"--with {wanted}: there is no {wanted} on your PATH; install it, use --with text, "
            "or write the packets to a file with -w FILE"
        )
    return Program((binary, *_ARGUMENTS[wanted]), has_window=wanted == WIRESHARK)


def pour(pieces: Iterable[bytes], viewer: Viewer) -> None:
    """Show pieces of a pcap or pcapng stream until it ends, or nobody looks any more.

    Raises:
        OSError: the file cannot be written.
        Fault: what comes is no capture.
    """
    match viewer:
        case Program():
            _into_program(pieces, viewer)
        case Raw(target) if target == STDOUT:
            _copy(pieces, sys.stdout.buffer)
        case Raw(target):
            with Path(target).open("wb") as file:
                _copy(pieces, file)
        case Text():
            for line in lines(pieces):
                click.echo(line)


def _copy(pieces: Iterable[bytes], to: IO[bytes]) -> None:
    for piece in pieces:
        to.write(piece)
        to.flush()


def _into_program(pieces: Iterable[bytes], viewer: Program) -> None:
    # Here alone, and not for every help text.
    import subprocess

    # In a session of its own: Ctrl-C is for us. A window stays open with what it has shown, a
    # program in the terminal finishes what it was given and ends.
    with subprocess.Popen(
        viewer.arguments,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None  # noqa: S101 - for the type checker
        try:
            with contextlib.suppress(BrokenPipeError):  # it was closed: nobody looks any more
                _copy(pieces, process.stdin)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            if not viewer.has_window:
                _end(process)
            else:
                process.returncode = 0  # it is the person's from now on; do not wait for it


def _end(process: subprocess.Popen[bytes]) -> None:
    from subprocess import TimeoutExpired

    try:
        process.wait(_END_SECONDS)
    except (TimeoutExpired, KeyboardInterrupt):
        process.kill()


class _Pieces:
    """What comes piece by piece, as a file: each read gives what is there, or waits for it.

    Attributes:
        head: The first bytes, not read yet; empty when nothing came at all.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.head = b""
        # What tells how to read the rest must not come in halves.
        while len(self.head) < _HEAD_BYTES and (more := next(self._pieces, b"")):
            self.head += more

    def read(self, _size: int = -1) -> bytes:
        head, self.head = self.head, b""
        return head or next(self._pieces, b"")


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """One line for each packet of a pcap or pcapng stream, as it comes.

    Raises:
        Fault: it is neither, or damaged.
    """
    from nightcap.pcap.formats import NotPcap
    from nightcap.pcap.pcapng_reading import NotPcapng

    file = _Pieces(pieces)
    try:
        if file.head[:4] == _PCAPNG:
            yield from _lines_of_pcapng(file)
        elif file.head:
            yield from _lines_of_pcap(file)
    except (NotPcap, NotPcapng) as error:
        raise Fault(f"what came is no capture: {error}") from error


def _lines_of_pcap(file: _Pieces) -> Iterator[str]:
    from nightcap.pcap import formats, summary

    reader = formats.PcapReader(file)  # type: ignore[arg-type]
    for record in reader:
        said = summary.describe(record.data, reader.header.linktype, {})
        yield f"{summary.time_of_day(record.time_ns)} {said}"
    _refuse_damage(reader.damage)


def _lines_of_pcapng(file: _Pieces) -> Iterator[str]:
    from nightcap.pcap import pcapng, summary
    from nightcap.pcap.pcapng_reading import PcapngReader

    reader = PcapngReader(file)  # type: ignore[arg-type]
    interfaces: list[pcapng.Interface] = []
    names: dict[str, str] = {}
    for value in reader:
        match value:
            case pcapng.Packet():
                interface = interfaces[value.interface]
                said = summary.describe(value.data, interface.linktype, names)
                yield f"{summary.time_of_day(value.time_ns)} {interface.name} {said}"
            case pcapng.Section():
                interfaces = []
            case pcapng.Interface():
                interfaces.append(value)
            case pcapng.Names():
                names |= {address: called[0] for address, called in value.records if called}
    _refuse_damage(reader.damage)


def _refuse_damage(damage: str) -> None:
    if damage:
        raise Fault(f"what came is damaged: {damage}")
