"""One interface of one capture: a libpcap handle and the segment that it fills."""

import time
from collections.abc import Callable
from typing import Final

from nightcap.contract.orders import CaptureOrder
from nightcap.pcap.handle import (
    BLOCK_BYTES,
    MAX_BATCH,
    RETIRE_MS,
    RING_BYTES,
    DumpFile,
    LiveCapture,
    batch,
)
from nightcap.pcap.libpcap import PcapError
from sidecar import log
from sidecar.segment import MARK_BYTES, Segment
from sidecar.spool import CaptureSpool

FLUSH_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = RETIRE_MS / 1000 + 0.05
"""After the last packet was let in, the kernel hands over what it holds within this time."""
NEVER: Final = float("inf")
_DISPATCHES: Final = range(8)
"""So many batches of one interface, then it is the next one's turn."""

RINGS_BYTES: Final = 6 * 2**20
"""Of all streams together: what the kernel holds for us is part of our memory."""


def ring_bytes(taken: int) -> int:
    """How large one more ring may be: a third of what is left, at most as large as one alone.

    Args:
        taken: Bytes of the rings that there are.

    Returns:
        Whole blocks; 0 when not even two are left.
    """
    left = RINGS_BYTES - taken
    size = min(RING_BYTES, max(2 * BLOCK_BYTES, left // 3 // BLOCK_BYTES * BLOCK_BYTES))
    return size if size <= left else 0


Budget = Callable[[], tuple[int, int]]
"""Packets and bytes that a capture may still take."""


class SpoolFull(Exception):
    """The spool takes no more bytes."""


class Stream:
    """Packets of one interface on their way into segments.

    Segments are made when the first packet waits, so a quiet interface leaves none.

    Attributes:
        position: Bytes of the open segment, as it was when it was last looked at.
        packets: Packets of the open segment.
        is_full: The capture may take nothing more.
        blocked_until: The spool takes nothing: not before this time is it tried again. The
            handle stays open meanwhile, so that the kernel counts what passes as dropped.
        close_at: When a stream that was silenced may be closed.
    """

    def __init__(
        self,
        spool: CaptureSpool,
        order: CaptureOrder,
        interface: str,
        live: LiveCapture,
        *,
        budget: Budget,
        limit_of_segment: Callable[[CaptureOrder], int],
    ) -> None:
        self.interface = interface
        self.live = live
        self._order = order
        self._spool = spool
        self._budget = budget
        self._limit_of_segment = limit_of_segment
        self._segment: Segment | None = None
        self._file: DumpFile | None = None
        self._marks: list[int] = []
        self._marked_at = 0
        self._opened_at = 0.0
        self._flushed_at = 0.0
        self._dirty = False
        # Packets of the next batch, and after how many `position` is looked at.
        self._quota = 0
        self._unseen = 0
        self._limit = 0
        self._taken = 0
        self.position = 0
        self.packets = 0
        self.is_full = False
        self.blocked_until = 0.0
        self.close_at = NEVER

    @property
    def due_at(self) -> float:
        """When time asks for something: see `tick`."""
        flush = self._flushed_at + FLUSH_SECONDS if self._dirty else NEVER
        age = self._opened_at + self._order.rotation.max_seconds if self.packets else NEVER
        return min(flush, age)

    def adjust(self, order: CaptureOrder) -> None:
        """Go on under other limits."""
        self._order = order
        self.is_full = False
        if self._file is not None:
            self._measure()
            self._plan()

    def pump(self, now: float) -> bool:
        """Write what waits.

        This runs for each block that the kernel hands over, a hundred times a second at 200 000
        packets, on a processor that has done something else meanwhile: each line counts.

        Args:
            now: Monotonic clock.

        Returns:
            Whether `due_at` or `is_full` have changed.

        Raises:
            PcapError: the interface is lost.
            SpoolFull: the packets have no place.
        """
        if self.is_full:
            return True
        news = False
        for _ in _DISPATCHES:
            file = self._file or self._begin(now)
            if file is None:
                return True
            quota = self._quota
            count = self.live.dispatch(quota, file)
            if count == 0:
                break
            self.packets += count
            self._unseen -= count
            if not self._dirty:
                self._dirty = news = True
            if self._unseen <= 0 and self._look():
                return True
            if count < quota:
                break
        return news

    def _look(self) -> bool:
        """Decide what becomes of the segment as it is now; True when it, or all, has ended."""
        self._measure()
        ends = self.position >= self._limit
        if ends:
            self._complete()
        self._plan()
        return ends or self.is_full

    def _measure(self) -> None:
        """See how long the segment is."""
        if self._file is None:
            return
        self.position = self._file.position()
        if self.position - self._marked_at >= MARK_BYTES:
            self._marked_at = self.position
            self._marks.append(self.position)

    def _plan(self) -> None:
        """How many packets the next batch may have, and after how many to look again."""
        packets, bytes_ = self._budget()
        self.is_full = packets <= 0 or bytes_ <= 0
        self._limit = self._limit_of_segment(self._order)
        limit = min(self._limit, self.position + bytes_)
        # One batch brings no more than the ring holds: so far from the limit it may be a large one.
        if self.packets and packets > MAX_BATCH and self.position + RING_BYTES < limit:
            self._quota = MAX_BATCH
            self._unseen = min(MAX_BATCH, MARK_BYTES * self.packets // self.position)
        else:
            self._quota = max(1, min(batch(self.position, self.packets, limit), packets))
            self._unseen = 0

    def tick(self, now: float) -> None:
        """Do what time asks for: hand over what is buffered, begin a new segment.

        Raises:
            SpoolFull: the packets have no place.
        """
        if self._segment is None or now < self.due_at:
            return
        if now >= self._opened_at + self._order.rotation.max_seconds:
            self._complete()
        else:
            self._flush(now)

    def _begin(self, now: float) -> DumpFile | None:
        """A new segment; None when the capture is full.

        Raises:
            SpoolFull
        """
        self._plan()
        if self.is_full:
            return None
        try:
            segment, fd = self._spool.begin(self.interface, self._order.rotation.max_files)
        except OSError as error:
            raise SpoolFull(f"no segment can be begun: {error.strerror or error}") from error
        file = self._file = DumpFile(self.live, fd)
        self._segment = segment
        self._opened_at = self._flushed_at = now
        self.position, self.packets = file.position(), 0
        self._plan()
        return file

    def _flush(self, now: float) -> None:
        if self._file is None or self._segment is None:
            return
        self._flushed_at = now
        self._measure()
        if not self._file.flush():
            self._give_up()
            raise SpoolFull("the spool takes no more bytes")
        self._dirty = False
        self._spool.grow(self._segment, self.position, self._marks)
        self._marks = []

    def _complete(self) -> None:
        """End the open segment."""
        if self._file is None or self._segment is None:
            return
        self._measure()
        if not self._file.flush():
            self._give_up()
            raise SpoolFull("the spool takes no more bytes")
        self._file.close()
        segment = self._segment
        self._spool.grow(segment, self.position, self._marks)
        position, packets = self.position, self.packets
        self._reset()
        self._taken += packets
        self._spool.complete(segment, position, packets)
        self._spool.spool.enforce()

    def _give_up(self) -> None:
        """End a segment that could not be written whole: keep its whole records, count the rest."""
        from sidecar import recovery  # seldom needed

        if self._file is None or self._segment is None:
            return
        self._file.close()
        segment, packets = self._segment, self.packets
        self._reset()
        self._taken += packets
        try:
            scan = recovery.mend(self._spool.path(segment))
        except OSError as error:
            log.error("segment cannot be mended", capture=self._spool.id, error=error)
            scan = None
        kept = scan.packets if scan else 0
        with self._spool.spool.lock:
            self._spool.ledger.dropped += packets - kept
        self._spool.complete(segment, scan.end if scan else 0, kept)

    def _reset(self) -> None:
        self._file = self._segment = None
        self._marks, self._marked_at = [], 0
        self.position = self.packets = 0
        self._dirty = False

    def silence(self, now: float) -> None:
        """Let no further packet in; `close` may be called from `close_at` on."""
        try:
            self.live.silence()
        except OSError as error:
            log.warning("interface not silenced", interface=self.interface, error=error)
        self.close_at = now + DRAIN_SECONDS

    def close(self) -> None:
        """Write what the kernel still holds, end the segment, close the handle; never raises."""
        drained = False
        try:
            while not self.is_full:
                before = self._written()
                self.pump(time.monotonic())
                if self._written() == before:
                    break
            drained = True
        except (PcapError, SpoolFull) as error:
            log.warning("interface not drained", interface=self.interface, error=error)
        try:
            self._complete()
        except SpoolFull as error:
            log.error("segment not ended", interface=self.interface, error=error)
        stats = self.live.stats()
        # What the kernel has let in and nobody will read.
        unread = 0 if drained else max(0, stats.received - stats.dropped - self._taken)
        with self._spool.spool.lock:
            self._spool.ledger.received += stats.received
            self._spool.ledger.dropped += stats.dropped + unread
        self.live.close()

    def discard(self) -> None:
        """Close without writing what is left: nobody wants it any more."""
        if self._file is not None:
            self._file.close()
        self._reset()
        self.live.close()

    def _written(self) -> tuple[int, int]:
        return self._spool.ledger.packets, self.packets
