"""What an earlier worker left in the spool: ledgers are read, segments mended and taken over.

Imported only when there is something to recover.
"""

import os
import re
from typing import Final

from nightcap.contract.orders import CAPTURE_ID
from nightcap.contract.uploads import BadUploadPath, unquote_interface
from nightcap.pcap import formats
from sidecar import log
from sidecar.segment import Segment
from sidecar.spool import CaptureSpool, Spool

SEGMENT_FILE: Final = re.compile(r"(\d{8})\.pcap(\.part)?")


def recover(spool: Spool, names: list[str]) -> None:
    """Take over the captures among these entries of the spool's folder."""
    folders = [name for name in names if CAPTURE_ID.fullmatch(name)]
    folders = [name for name in folders if os.path.isdir(f"{spool.root}/{name}")]
    for name in sorted(folders, key=lambda name: os.stat(f"{spool.root}/{name}").st_mtime):
        capture = spool.capture(name)
        try:
            _load(capture)
        except OSError as error:
            log.error("capture cannot be recovered", capture=name, error=error)


def _load(capture: CaptureSpool) -> None:
    capture.load()
    for name in sorted(os.listdir(capture.folder)):
        if os.path.isdir(f"{capture.folder}/{name}"):
            _load_interface(capture, name)
    with capture.spool.lock:
        capture.save_quietly()


def _load_interface(capture: CaptureSpool, folder: str) -> None:
    try:
        interface = unquote_interface(folder)
    except BadUploadPath:
        return
    for name in sorted(os.listdir(f"{capture.folder}/{folder}")):
        match = SEGMENT_FILE.fullmatch(name)
        if match is None:
            continue
        path = f"{capture.folder}/{folder}/{name}"
        try:
            _load_segment(capture, path, interface, int(match[1]), grew=match[2] is not None)
        except OSError as error:
            log.error("segment cannot be recovered", file=name, error=error)


def _load_segment(
    capture: CaptureSpool, path: str, interface: str, seq: int, *, grew: bool
) -> None:
    book = capture.ledger
    book.next_seq[interface] = max(seq + 1, book.next_seq.get(interface, 0))
    counted = seq <= book.counted.get(interface, -1)
    if grew or not counted:
        scan = mend(path)
        if scan is None:
            return
        if not counted:
            book.count(interface, seq, scan.packets, scan.end)
            # The kernel's counters die with the worker; they are never below ours.
            book.received = max(book.received, book.packets)
    segment = Segment(interface, seq, capture.spool.next_age(), max_files=10**6)
    segment.complete = segment.recovered = True
    segment.size = os.stat(path).st_size
    if grew:
        os.rename(path, capture.path(segment))
    capture.segments.append(segment)


def mend(path: str) -> formats.Scan | None:
    """Cut off what a dead writer left behind the last whole record.

    Returns:
        What the file holds; None when that is no packet, and then the file is gone.

    Raises:
        OSError
    """
    try:
        with open(path, "rb") as file:
            scan = formats.scan(file)
    except formats.NotPcap:
        scan = None
    if scan is None or scan.packets == 0:
        os.unlink(path)
        return None
    if scan.end < os.stat(path).st_size:
        os.truncate(path, scan.end)
        log.warning("torn record cut off", file=os.path.basename(path), bytes=scan.end)
    return scan
