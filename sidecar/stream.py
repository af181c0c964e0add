"""One interface of one capture: a libpcap handle and the segment that it fills."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from nightcap.contract.orders import CaptureOrder
from nightcap.pcap.handle import BLOCK_BYTES, RETIRE_MS, RING_BYTES, LiveCapture
from nightcap.pcap.libpcap import PcapError
from sidecar import log, rotation
from sidecar.libpump import BUFFER_BYTES, Budget, Inlet
from sidecar.segment import MARK_BYTES, Segment
from sidecar.spool import CaptureSpool

FLUSH_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = RETIRE_MS / 1000 + 0.05
"""After the last packet was let in, the kernel hands over what it holds within this time."""
NEVER: Final = float("inf")
RINGS_BYTES: Final = 6 * 2**20
"""Of all streams together: what the kernel holds for us is part of our memory."""
RINGS: Final = 8
"""So many streams find room, in whatever order they are opened."""
_LEAST_RING_BYTES: Final = 2 * BLOCK_BYTES


def ring_bytes(taken: Sequence[int], wanted: int) -> int:
    """How large the next ring may be.

    Args:
        taken: Bytes of each of the rings that there are.
        wanted: So many are to be opened now, this one included.

    Returns:
        Whole blocks: an even share of what is left when the least is kept back for all that may
        come later, no more than one alone has; 0 when there is nothing left.
    """
    left = RINGS_BYTES - sum(taken)
    later = max(0, RINGS - len(taken) - wanted)
    share = (left - later * _LEAST_RING_BYTES) // wanted // BLOCK_BYTES * BLOCK_BYTES
    size = min(RING_BYTES, max(_LEAST_RING_BYTES, share))
    return size if size <= left else 0


def _power_of_two(most: int) -> int:
    """The highest that is not above: so large are the pages that a write can get."""
    return 1 << (most.bit_length() - 1)


class SpoolFull(Exception):
    """The spool takes no more bytes."""


class Stream:
    """Packets of one interface on their way into segments.

    Segments are made when the first packet waits, so a quiet interface leaves none. The packets
    themselves are moved by `inlet`, which comes back when one of the decisions here is due.

    Attributes:
        inlet: Moves packets from the kernel into the segment.
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
        self.inlet = Inlet(
            live.handle,
            live.header,
            budget,
            mark_bytes=MARK_BYTES,
            # Small where the ring is: with many of them it counts.
            buffer_bytes=_power_of_two(min(BUFFER_BYTES, live.ring_bytes // 16)),
        )
        self._budget = budget
        self._order = order
        self._spool = spool
        self._limit_of_segment = limit_of_segment
        self._segment: Segment | None = None
        self._opened_at = 0.0
        self._taken = 0
        self.blocked_until = 0.0
        self.close_at = NEVER

    @property
    def position(self) -> int:
        """Bytes of the open segment."""
        return self.inlet.position

    @property
    def packets(self) -> int:
        """Packets of the open segment."""
        return self.inlet.packets

    @property
    def is_full(self) -> bool:
        """The capture may take nothing more."""
        return self._budget.packets <= 0 or self._budget.bytes <= 0

    def adjust(self, order: CaptureOrder) -> None:
        """Go on under other limits."""
        self._order = order
        if self._segment is not None:
            self._plan(time.monotonic())

    def look(self, now: float) -> None:
        """Decide what becomes of what was written.

        Args:
            now: Monotonic clock.

        Raises:
            PcapError: the interface is lost.
            SpoolFull: the packets have no place.
        """
        inlet = self.inlet
        if inlet.is_lost:
            raise PcapError(self.live.error() or "capture was interrupted")
        if inlet.is_wanted and not self.is_full:
            self._begin(now)
        elif inlet.packets and rotation.is_full(
            written=inlet.position,
            limit=inlet.limit,
            age_seconds=now - self._opened_at,
            max_seconds=self._order.rotation.max_seconds,
        ):
            self._complete()
        elif inlet.is_due(now):
            self._flush(now)

    def _begin(self, now: float) -> None:
        """A new segment.

        Raises:
            SpoolFull
        """
        try:
            segment, fd = self._spool.begin(self.interface, self._order.rotation.max_files)
        except OSError as error:
            raise SpoolFull(f"no segment can be begun: {error.strerror or error}") from error
        self._segment = segment
        self._opened_at = now
        self.inlet.begin(fd)
        self._plan(now + FLUSH_SECONDS)

    def _plan(self, flush_at: float) -> None:
        """When the inlet has to come back."""
        self.inlet.limit = self._limit_of_segment(self._order)
        self.inlet.due(flush_at, self._opened_at + self._order.rotation.max_seconds)

    def _flush(self, now: float) -> None:
        if self._segment is None:
            return
        self._hand_over(self._segment)
        self._plan(now + FLUSH_SECONDS)

    def _hand_over(self, segment: Segment) -> None:
        """Let readers have what was written; where the disk is full, for the oldest segments.

        Raises:
            SpoolFull: it was not taken; the segment is given up.
        """
        while not self.inlet.flush():
            missed = self.inlet.pop_missed()
            self._taken += missed
            self._count_dropped(missed)
            if not (self.inlet.retry() and self._spool.spool.make_room()):
                self._give_up(segment)
                raise SpoolFull("the spool takes no more bytes")
        self.inlet.told = self.inlet.position
        self._spool.grow(segment, self.inlet.position, self.inlet.pop_marks())

    def _complete(self) -> None:
        """End the open segment."""
        segment = self._segment
        if segment is None:
            return
        self._hand_over(segment)
        position, packets = self._reset()
        self._spool.complete(segment, position, packets)
        self._spool.spool.enforce()

    def _give_up(self, segment: Segment) -> None:
        """End a segment that could not be written whole: keep its whole records, count the rest."""
        from sidecar import recovery  # seldom needed

        _, packets = self._reset()
        try:
            scan = recovery.mend(self._spool.path(segment))
        except OSError as error:
            log.error("segment cannot be mended", capture=self._spool.id, error=error)
            scan = None
        kept = scan.packets if scan else 0
        self._count_dropped(packets - kept)
        self._spool.complete(segment, scan.end if scan else 0, kept)

    def _count_dropped(self, packets: int) -> None:
        with self._spool.spool.lock:
            self._spool.ledger.dropped += packets

    def _reset(self) -> tuple[int, int]:
        """Have no segment any more; returns the bytes and packets of the one that was."""
        position, packets = self.inlet.position, self.inlet.packets
        self._segment = None
        self._taken += packets
        self.inlet.close()
        return position, packets

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
                before = self._taken, self.packets
                self.inlet.take()
                wanted = self.inlet.is_wanted
                self.look(time.monotonic())
                if not wanted and before == (self._taken, self.packets):
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
        if self._segment is not None:
            self._reset()
        self.live.close()
