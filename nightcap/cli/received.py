"""What was received: as long as announced, a whole zip, readable captures, harmless names."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from nightcap.contract.segments import BadName, parse_file_name
from nightcap.pcap.formats import NotPcap, scan


class Damaged(ValueError):
    """What came is not what was sent; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A capture file that can be read to its end."""

    name: str
    size: int
    packets: int


def save(
    pieces: Iterable[bytes], announced: int | None, file: BinaryIO, tell: Callable[[int], None]
) -> int:
    """Write pieces to a file; returns the number of bytes.

    Raises:
        Damaged: fewer or more bytes than announced.
    """
    size = 0
    for piece in pieces:
        file.write(piece)
        size += len(piece)
        tell(size)
    check_size(size, announced)
    file.flush()
    return size


def check_size(size: int, announced: int | None) -> None:
    """Refuse fewer or more bytes than announced.

    Raises:
        Damaged: says how many came.
    """
    if announced is not None and size != announced:
        raise Damaged(f"{size} bytes came, {announced} were announced")


def check_pcap(name: str, file: BinaryIO, size: int) -> Found:
    """Read a capture file from its begin to its end.

    Raises:
        Damaged: it is none, or ends in the middle of a packet.
    """
    try:
        found = scan(file)
    except NotPcap as error:
        raise Damaged(f"{name}: {error}") from error
    if found.damage:
        raise Damaged(f"{name}: {found.damage}")
    return Found(name, size, found.packets)


def check_merged(file: BinaryIO, name: str, size: int) -> Found:
    """Read a pcapng file from its begin to its end.

    Raises:
        Damaged: it is none, or ends in the middle of a block.
    """
    from nightcap.pcap.pcapng import Packet
    from nightcap.pcap.pcapng_reading import NotPcapng, PcapngReader

    try:
        reader = PcapngReader(file)
    except NotPcapng as error:
        raise Damaged(f"{name}: {error}") from error
    packets = sum(isinstance(value, Packet) for value in reader)
    if reader.damage:
        raise Damaged(f"{name}: {reader.damage}")
    return Found(name, size, packets)


def check_zip(file: BinaryIO) -> list[Found]:
    """Read every file of a zip: its checksum, its packets, its name.

    Raises:
        Damaged: anything is not as it should be.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return [_check_entry(archive, entry) for entry in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Damaged(f"no whole zip: {error}") from error


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Found:
    check_name(entry.filename)
    with archive.open(entry) as stream:
        found = check_pcap(entry.filename, stream, entry.file_size)  # type: ignore[arg-type]
        while stream.read(2**20):
            pass  # the checksum is compared at the very end
    return found


def check_name(name: str) -> str:
    """A name that becomes a path here; nothing but a capture file's name may.

    Raises:
        Damaged: it could lead out of the folder, or is none of ours.
    """
    try:
        parse_file_name(name)
    except BadName as error:
        raise Damaged(str(error)) from error
    return name


def unpack(file: BinaryIO, folder: Path) -> None:
    """Write the files of a checked zip into a folder, each whole or not at all."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            with (
                archive.open(entry) as stream,
                replacing(folder / check_name(entry.filename)) as to,
            ):
                copy(stream, to)


def copy(source: IO[bytes], to: IO[bytes]) -> None:
    """Copy what is left of a file."""
    shutil.copyfileobj(source, to, 2**20)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its place when it is whole, and is gone when it is not."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=".nightcap-", suffix=".part", delete=False
    ) as part:
        try:
            yield part  # type: ignore[misc]
            part.flush()
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
