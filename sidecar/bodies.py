"""Which piece of a segment's file an upload carries; it ends where a record ends."""

import os
import sys
from typing import Final

from nightcap.contract.uploads import MAX_BODY_BYTES
from nightcap.pcap import formats
from sidecar import shipping
from sidecar.connection import EMPTY, Body
from sidecar.segment import Segment

_BYTE_ORDER: Final = "<" if sys.byteorder == "little" else ">"


def open_body(path: str, segment: Segment) -> Body:
    """The next piece of the segment that lies at `path`; whoever gets it closes its file.

    Raises:
        OSError: the file cannot be opened.
    """
    if segment.removed or segment.size <= segment.acked:
        return EMPTY
    end = shipping.body_end(segment)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if end is None:
        end = _walk(path, segment.acked, segment.size)
    return Body(fd, segment.acked, end - segment.acked)


def close_body(body: Body) -> None:
    """Let go of the file."""
    if body.fd >= 0:
        os.close(body.fd)


def _walk(path: str, start: int, size: int) -> int:
    """Where the last whole record ends that fits into one body."""
    at = max(start, formats.HEADER_BYTES)
    with open(path, "rb") as file:
        file.seek(at)
        data = file.read(min(size, start + MAX_BODY_BYTES) - at)
    whole = formats.record_boundary(data, _BYTE_ORDER)
    # Not at the start of a record, which only a damaged collector can bring about: any cut will do.
    return at + (whole or len(data))
