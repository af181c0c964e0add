"""The upload protocol between sidecar and collector: paths, headers, limits.

    PATCH | HEAD  /v1/captures/{capture uid}/{interface, percent-encoded}/{seq}

Needs the standard library alone: sidecars speak it.
"""

import re
from typing import Final, NamedTuple

from nightcap.contract.orders import CAPTURE_ID, is_interface

OFFSET: Final = "Upload-Offset"
"""Request: where the body starts. Answer: bytes received so far."""
COMPLETE: Final = "Upload-Complete"
"""`?1` when the segment ends with this body, `?0` while it grows (RFC 8941 boolean)."""
REPORT: Final = "Nightcap-Report"
DURABLE: Final = "Nightcap-Durable"
"""Answer: bytes that are safe; the spool may free no more than these."""
PACE: Final = "Nightcap-Pace"
"""Answer: seconds until the next upload of this segment."""
UNTIL: Final = "Nightcap-Until"
"""Answer: the capture's end as the collector knows it, seconds since the epoch."""

MAX_BODY_BYTES: Final = 4 * 2**20
COLLECTOR_SERVICE: Final = "nightcap-collector"
COLLECTOR_PORT: Final = 20443
"""One uncommon number for Service and container, so that filters can leave it out."""

_PATH = re.compile(r"/v1/captures/([^/]{1,63})/([^/]{1,60})/([0-9]{1,8})")
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
"""What percent-encoding leaves as it is (RFC 3986, unreserved)."""


class BadUploadPath(ValueError):
    """A path that names no segment."""


class SegmentName(NamedTuple):
    """One segment of one pod's capture; the pod is who the token says."""

    capture: str
    interface: str
    seq: int


def upload_path(segment: SegmentName) -> str:
    """The path that this segment is shipped to."""
    return f"/v1/captures/{segment.capture}/{quote_interface(segment.interface)}/{segment.seq}"


def parse_upload_path(path: str) -> SegmentName:
    """Read a raw (still percent-encoded) path.

    Raises:
        BadUploadPath: the path has another form, or a part of it is not what it should be.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise BadUploadPath("path must be /v1/captures/{capture uid}/{interface}/{seq}")
    # Bytes that are no UTF-8 become U+FFFD, which no interface of ours is called.
    capture, interface, seq = match[1], unquote_interface(match[2]), int(match[3])
    if not CAPTURE_ID.fullmatch(capture):
        raise BadUploadPath(f"capture {capture!r} is no uid (lower-case hexadecimal and '-')")
    return SegmentName(capture, interface, seq)


def quote_interface(name: str) -> str:
    """An interface's name as one part of a path or a folder's name; never `.` or `..`."""
    if _PLAIN.fullmatch(name):
        return name
    from urllib.parse import quote  # seldom needed, and slow to import

    return quote(name, safe="")


def unquote_interface(part: str) -> str:
    """The counterpart of `quote_interface`.

    Raises:
        BadUploadPath: it is no name of an interface.
    """
    name = part
    if not _PLAIN.fullmatch(part):
        from urllib.parse import unquote

        name = unquote(part)
    if not is_interface(name) or quote_interface(name) != part:
        raise BadUploadPath(f"{part[:60]!r} is no percent-encoded name of an interface")
    return name


def format_boolean(value: bool) -> str:
    """Write a boolean as RFC 8941 does."""
    return "?1" if value else "?0"


def parse_boolean(text: str | None) -> bool:
    """Read `?1` or `?0`; absent means `?0`.

    Raises:
        ValueError: any other text.
    """
    match text:
        case "?1":
            return True
        case "?0" | None:
            return False
        case _:
            raise ValueError(f"{COMPLETE}: {text[:20]!r} must be ?0 or ?1")
