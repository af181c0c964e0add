"""Bytes on their way to a person: one file or a range of it, or a zip of many."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from zipstream import ZIP_STORED, ZipStream

from retrieval.files.catalog import CaptureFile
from retrieval.store.base import ReadableStore, SegmentReader

CHUNK_BYTES: Final = 2**18


class Vanished(Exception):
    """A file is shorter than what was promised; the answer can only be cut."""


@dataclass(frozen=True, slots=True)
class Body:
    """What is to be sent.

    Attributes:
        length: Bytes, exact.
        stack: Open files; to be closed when the body is sent or not.
    """

    length: int
    chunks: Iterator[bytes]
    stack: ExitStack


def part_of_file(store: ReadableStore, file: CaptureFile, begin: int, end: int) -> Body:
    """The bytes of a file from `begin` up to `end`.

    Raises:
        FileNotFoundError: it was deleted meanwhile.
    """
    stack = ExitStack()
    reader = stack.enter_context(store.open(file.key))
    return Body(end - begin, _chunks(reader, begin, end), stack)


def zip_of_files(store: ReadableStore, files: list[CaptureFile]) -> Body:
    """A zip of files as long as they are now, stored; a file deleted meanwhile is left out.

    All are opened at once: a ring that drops its oldest does not break an answer under way.
    """
    stack = ExitStack()
    archive = ZipStream(compress_type=ZIP_STORED, sized=True)
    try:
        for file in files:
            try:
                reader = stack.enter_context(store.open(file.key))
            except FileNotFoundError:
                continue
            archive.add(_chunks(reader, 0, file.size), file.name, size=file.size)
        return Body(len(archive), iter(archive), stack)
    except BaseException:
        stack.close()
        raise


def _chunks(reader: SegmentReader, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        chunk = reader.read_at(begin, min(CHUNK_BYTES, end - begin))
        if not chunk:
            raise Vanished(f"a file ends at {begin}, {end} bytes were promised")
        begin += len(chunk)
        yield chunk
