"""What a store can do, in words that hold for a directory and for an object store.

A segment is a growing run of bytes that is appended to at its end, then completed.
`size` is what has been received, `durable` what a power cut cannot take any more.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nightcap.closing import Closing
from nightcap.contract.segments import SegmentKey, StreamKey

Bytes = bytes | memoryview
"""Of an append; nobody changes them."""


class StoreFull(Exception):
    """There is no room for more; nothing of the request was kept."""


class StoreFailed(Exception):
    """The store could not do it; nothing of the request was kept or it is not durable."""


class OffsetConflict(Exception):
    """An append that does not start where the segment ends, or comes after its end.

    Attributes:
        segment: The segment as it is.
    """

    def __init__(self, segment: "SegmentState") -> None:
        super().__init__(f"the segment has {segment.size} bytes")
        self.segment = segment


@dataclass(frozen=True, slots=True)
class SegmentState:
    """How far a segment is; an unknown one has 0 bytes.

    Attributes:
        size: Bytes received.
        durable: Bytes that are known to be safe; 0 when that is not known.
    """

    size: int = 0
    complete: bool = False
    durable: int = 0


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """One segment as a listing shows it.

    Attributes:
        modified_at: Time of the last append, seconds since the epoch.
    """

    key: SegmentKey
    size: int
    complete: bool
    modified_at: float


@dataclass(frozen=True, slots=True)
class StreamMeta:
    """What is remembered of a stream beside its bytes.

    Attributes:
        capture: Name of the capture when the stream began.
        links: Interface → link type, of the interfaces that have sent a segment.
        ips: The pod's addresses, as the API server had them; empty while it has none.
    """

    pod: str
    node: str
    capture: str
    links: dict[str, int] = field(default_factory=dict)
    ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """How much is stored of a stream."""

    count: int = 0
    bytes: int = 0


class SegmentReader(Closing):
    """An open segment; what was there when it was opened stays readable until it is closed."""

    @abstractmethod
    def read_at(self, offset: int, count: int) -> bytes:
        """At most `count` bytes; fewer only where the segment ends."""


class ReadableStore(Protocol):
    """What the files program needs.

    `streams` always looks anew; what is asked of its streams right after it may be answered
    from that look.
    """

    @property
    def look_seconds(self) -> float:
        """How long whoever watches a capture is to wait between two looks."""

    def captures(self) -> Iterator[tuple[str, str]]:
        """(namespace, capture uid) of all that is stored."""

    def streams(self, namespace: str, capture: str) -> tuple[StreamKey, ...]: ...

    def segments(self, stream: StreamKey) -> tuple[StoredSegment, ...]:
        """All segments of a stream, by interface and number."""

    def meta(self, stream: StreamKey) -> StreamMeta | None: ...

    def report(self, stream: StreamKey) -> bytes | None:
        """What `write_report` wrote last."""

    def open(self, key: SegmentKey) -> SegmentReader:
        """Open a segment for reading.

        Raises:
            FileNotFoundError: there is no such segment.
        """

    def delete_segment(self, key: SegmentKey) -> None:
        """Remove a segment; one that is not there is no error."""


class Store(ReadableStore, Protocol):
    """What the collector needs."""

    @property
    def pace_seconds(self) -> float:
        """How long a sidecar is to wait between two appends to a segment, at the least."""

    def fault(self) -> str | None:
        """Why nothing can be stored yet, if it cannot; a sentence."""

    def start(self) -> None:
        """Begin to work; after a fork, in the process that appends.

        Raises:
            StoreFailed: it never can, as it is set up.
        """

    def close(self) -> None:
        """Make everything safe and let go."""

    def has_stream(self, stream: StreamKey) -> bool: ...

    def create_stream(self, stream: StreamKey, meta: StreamMeta) -> None:
        """Begin a stream, durably, before its first byte: the standing yes to its appends."""

    def set_link(self, key: SegmentKey, link_type: int) -> None:
        """Remember the link type of an interface in the stream's meta."""

    def set_addresses(self, stream: StreamKey, ips: tuple[str, ...]) -> None:
        """Remember a pod's addresses in the stream's meta."""

    def segment(self, key: SegmentKey) -> SegmentState: ...

    def append(self, key: SegmentKey, offset: int, body: Bytes, *, complete: bool) -> SegmentState:
        """Append all of `body` or nothing; `complete` ends the segment.

        What is written is not durable yet: see `wait_durable`.

        Raises:
            OffsetConflict: the segment is not `offset` bytes long, or it is complete.
            StoreFull: no room.
            StoreFailed: any other fault of the disk.
        """

    def wait_durable(self, key: SegmentKey, size: int, timeout: float) -> int:
        """Wait until `size` bytes of a segment are safe.

        Returns:
            Bytes that are safe; fewer than `size` when the time was up.

        Raises:
            StoreFull: the disk had no room for them after all.
            StoreFailed: the disk refused to keep them; they are gone from the segment.
        """

    def tally(self, stream: StreamKey) -> Tally: ...

    def recount(self) -> tuple[StreamKey, ...]:
        """Count anew what may have been deleted; the streams whose tally was wrong."""

    def write_report(self, stream: StreamKey, text: bytes, seq: int) -> None:
        """Keep a stream's report; of several the one with the highest `seq` is read."""

    def reported(self) -> Mapping[StreamKey, int]:
        """Stream → `seq` of its report, as the last `heal` saw what other replicas had written."""

    def heal(self) -> None:
        """Finish what a replica that is gone had begun; often called, it works when it is due."""

    def free_bytes(self) -> int | None:
        """How much more can be stored; None where nobody knows."""

    def delete_capture(self, namespace: str, capture: str) -> None:
        """Remove all that is stored of a capture."""
