"""Where segments lie in the store, and what people see them called.

    {namespace}/{capture uid}/{pod uid}/{interface}/{seq:08d}.pcap      in the store
    {pod}_{interface}-{first packet, microseconds}.pcap                 in a person's hands

Needs the standard library alone.
"""

import re
from dataclasses import dataclass
from typing import Final

from nightcap.contract.orders import CAPTURE_ID, is_interface
from nightcap.contract.uploads import BadUploadPath, quote_interface, unquote_interface

SEGMENT_FILE: Final = re.compile(r"([0-9]{8})\.pcap")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_POD_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_FILE_NAME: Final = re.compile(r"(?P<pod>[^_]+)_(?P<interface>.+)-(?P<first>[0-9]{1,20})\.pcap")


class BadName(ValueError):
    """A name that is refused: it is parsed, never cleaned."""


@dataclass(frozen=True, slots=True)
class StreamKey:
    """All that one pod has sent of one capture."""

    namespace: str
    capture: str
    pod_uid: str

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise BadName(f"namespace {self.namespace[:80]!r} is no name of a namespace")
        for uid in (self.capture, self.pod_uid):
            if not CAPTURE_ID.fullmatch(uid):
                raise BadName(f"{uid[:80]!r} is no uid (lower-case hexadecimal and '-')")

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.capture}/{self.pod_uid}"


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """One segment in the store."""

    stream: StreamKey
    interface: str
    seq: int

    def __post_init__(self) -> None:
        if not is_interface(self.interface):
            raise BadName(f"{self.interface[:40]!r} is no name of an interface")
        if not 0 <= self.seq <= 99_999_999:
            raise BadName(f"segment number {self.seq} must be 0 to 99999999")

    @property
    def path(self) -> str:
        return f"{self.stream.path}/{quote_interface(self.interface)}/{self.seq:08d}.pcap"


def parse_segment_path(path: str) -> SegmentKey:
    """Read a path of the store.

    Raises:
        BadName: it names no segment.
    """
    parts = path.split("/")
    file = SEGMENT_FILE.fullmatch(parts[-1])
    if len(parts) != 5 or file is None:
        raise BadName(f"{path[:200]!r} is no path of a segment")
    try:
        interface = unquote_interface(parts[3])
    except BadUploadPath as error:
        raise BadName(str(error)) from error
    return SegmentKey(StreamKey(parts[0], parts[1], parts[2]), interface, int(file[1]))


@dataclass(frozen=True, slots=True)
class FileName:
    """A segment's name for people; `first_us` is its first packet's time in microseconds."""

    pod: str
    interface: str
    first_us: int

    def __str__(self) -> str:
        return f"{self.pod}_{quote_interface(self.interface)}-{self.first_us}.pcap"


def parse_file_name(text: str) -> FileName:
    """Read a file's name as `FileName` writes it.

    Raises:
        BadName: any other text, such as one with a separator or a leading dot.
    """
    match = _FILE_NAME.fullmatch(text) if len(text) <= 400 else None
    if match is None or not _POD_NAME.fullmatch(match["pod"]):
        raise BadName(f"{text[:100]!r} is no name of a capture file")
    try:
        name = FileName(match["pod"], unquote_interface(match["interface"]), int(match["first"]))
    except BadUploadPath as error:
        raise BadName(str(error)) from error
    if str(name) != text:
        raise BadName(f"{text[:100]!r} is no name of a capture file")
    return name
