"""`errand export`: the spool's segments of one capture as tar on standard output.

For people with the right to `pods/exec`, when the collector cannot be reached. It only reads: what
the worker frees meanwhile is open already, and of what it is writing come the whole records.
"""

import io
import json
import os
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from nightcap.contract.orders import CAPTURE_ID
from nightcap.contract.streaming import EXPORT_INDEX, VERSION
from nightcap.pcap import formats
from sidecar import log
from sidecar.recovery import SEGMENT_FILE
from sidecar.settings import Settings

_MOST: Final = 1000
"""Files that are held open at once; a spool has far fewer."""


def main() -> int:
    """Write the segments; returns the exit code."""
    capture = sys.argv[2]
    if not CAPTURE_ID.fullmatch(capture):
        log.error("bad request", message=f"{capture[:80]!r} is no uid of a capture")
        return 2
    try:
        spool = Path(Settings.from_environ(os.environ).spool_dir)
        export(spool / capture, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        log.error("export failed", message=str(error))
        return 1
    return 0


def export(folder: Path, to: BinaryIO) -> None:
    """Write a capture's segments as `{interface, quoted}/{seq:08d}.pcap`, oldest first.

    Raises:
        OSError: nobody reads, or a file cannot be read.
    """
    with ExitStack() as stack, tarfile.open(fileobj=to, mode="w|") as tar:
        opened = [
            (name, stack.enter_context(path.open("rb"))) for name, path in _segments(folder)[:_MOST]
        ]
        index = json.dumps({"v": VERSION, "segments": len(opened)}).encode()
        _add(tar, EXPORT_INDEX, io.BytesIO(index), len(index))
        for name, file in opened:
            size = _whole_records(file)
            file.seek(0)
            _add(tar, name, file, size)


def _segments(folder: Path) -> list[tuple[str, Path]]:
    found = []
    for path in sorted(folder.glob("*/*")) if folder.is_dir() else ():
        match = SEGMENT_FILE.fullmatch(path.name)
        if match is not None:
            found.append((f"{path.parent.name}/{match[1]}.pcap", path))
    return found


def _whole_records(file: BinaryIO) -> int:
    """Bytes up to the end of the last record that is whole; 0 when there is none."""
    try:
        scan = formats.scan(file)
    except formats.NotPcap:
        return 0
    return scan.end if scan.packets else 0


def _add(tar: tarfile.TarFile, name: str, file: BinaryIO, size: int) -> None:
    if size:
        member = tarfile.TarInfo(name)
        member.size = size
        tar.addfile(member, file)
