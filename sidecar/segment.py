"""One segment: a file in the spool, and what the collector has of it."""

from typing import Final

MARK_BYTES: Final = 512 * 2**10
"""About so far apart ends of records are remembered, so that a body can end at one."""


class Segment:
    """One file, and what the collector knows of it.

    Attributes:
        age: Place in the order of creation over all captures.
        size: Bytes that may be read; always the end of a record. Of one that was dropped, what
            the collector has.
        recorded: What `size` was when it was dropped.
        marks: Ends of records below `size`, ascending, some hundred KiB apart.
        ours: What the collector holds under this number is surely ours: it was asked, or has
            accepted something.
        recovered: Written by a worker before this one.
        acked: Bytes that the collector has received.
        durable: Bytes that it will not lose.
        sealed: It knows that the segment ends there.
        busy: It is being uploaded now.
        next_at: When to upload more of it, by the monotonic clock.
    """

    def __init__(self, interface: str, seq: int, age: int, max_files: int) -> None:
        self.interface = interface
        self.seq = seq
        self.age = age
        self.max_files = max_files
        self.size = 0
        self.recorded = 0
        self.complete = False
        self.removed = False
        self.marks: list[int] = []
        self.ours = False
        self.recovered = False
        self.acked = 0
        self.durable = 0
        self.sealed = False
        self.busy = False
        self.next_at = 0.0

    @property
    def file_name(self) -> str:
        return f"{self.seq:08d}.pcap" + ("" if self.complete else ".part")

    @property
    def shipped(self) -> bool:
        return self.sealed and self.durable >= self.size
