"""The engine: one capture's interfaces, each a libpcap handle and the segment that it fills."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nightcap.contract.filters import BadFilter, check_expression
from nightcap.contract.orders import CaptureOrder
from nightcap.contract.reports import Reason, State
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.pcap.handle import (
    RETIRE_MS,
    DumpFile,
    LiveCapture,
    NoSuchInterface,
    NotPermitted,
    batch,
)
from nightcap.pcap.libpcap import FilterError, PcapError
from sidecar import interfaces, log, rotation
from sidecar.spool import MARK_BYTES, CaptureSpool, Segment, Status, mend

FLUSH_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = RETIRE_MS / 1000 + 0.05
"""After the last packet was let in, the kernel hands over what it holds within this time."""
NEVER: Final = float("inf")
_UNLIMITED: Final = 2**62
_DISPATCHES: Final = 8
"""So many batches of one interface, then it is the next one's turn."""
_RETRY_SECONDS: Final = {
    Reason.BAD_FILTER: NEVER,  # until the orders change
    Reason.NO_INTERFACE: 2.0,
    Reason.NO_PRIVILEGE: 30.0,
    Reason.SPOOL_FULL: 2.0,
    Reason.CAPTURE_ERROR: 5.0,
}


class SpoolFull(Exception):
    """The spool takes no more bytes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an interface is not being captured, and when it is tried again."""

    reason: Reason
    message: str
    retry_at: float


class Stream:
    """One interface of one capture.

    Segments are made when the first packet waits, so a quiet interface leaves none.
    """

    def __init__(
        self,
        spool: CaptureSpool,
        order: CaptureOrder,
        interface: str,
        live: LiveCapture,
        limit_of_segment: Callable[[CaptureOrder], int],
    ) -> None:
        self.interface = interface
        self.live = live
        self.order = order
        self._spool = spool
        self._limit_of_segment = limit_of_segment
        self._segment: Segment | None = None
        self._file: DumpFile | None = None
        self._marks: list[int] = []
        self._opened_at = 0.0
        self._flushed_at = 0.0
        self._dirty = False
        self.position = 0
        """Bytes of the open segment."""
        self.packets = 0
        """Packets of the open segment."""
        self.close_at = NEVER

    @property
    def needs_flush_at(self) -> float:
        return self._flushed_at + FLUSH_SECONDS if self._dirty else NEVER

    @property
    def rotates_at(self) -> float:
        return self._opened_at + self.order.rotation.max_seconds if self.packets else NEVER

    def pump(self, now: float, budget: Callable[[], tuple[int, int]]) -> bool:
        """Write what waits.

        Args:
            now: Monotonic clock.
            budget: Packets and bytes that the capture may still take.

        Returns:
            Whether the capture may take nothing more.

        Raises:
            PcapError: the interface is lost.
            SpoolFull: the packets have no place.
        """
        # Once, not for each batch: this runs for each block that the kernel hands over.
        full_at = self._limit_of_segment(self.order)
        for _ in range(_DISPATCHES):
            packets, bytes_ = budget()
            if packets <= 0 or bytes_ <= 0:
                return True
            file = self._file or self._begin(now)
            limit = min(full_at, self.position + bytes_)
            wanted = min(batch(self.position, self.packets, limit), packets)
            count = self.live.dispatch(wanted, file)
            if count == 0:
                return False
            self.packets += count
            self.position = file.position()
            self._dirty = True
            if self.position - (self._marks[-1] if self._marks else 0) >= MARK_BYTES:
                self._marks.append(self.position)
            if self._is_full(now, full_at):
                self._complete()
            if count < wanted:
                return False
        return False

    def tick(self, now: float) -> None:
        """Do what time asks for: hand over what is buffered, begin a new segment.

        Raises:
            SpoolFull: the packets have no place.
        """
        # One that is too large, because a limit was lowered, ends with its next packet.
        if self._segment is not None and now >= self.rotates_at:
            self._complete()
        elif now >= self.needs_flush_at:
            self._flush(now)

    def _is_full(self, now: float, limit: int) -> bool:
        return rotation.is_full(
            written=self.position,
            limit=limit,
            age_seconds=now - self._opened_at,
            max_seconds=self.order.rotation.max_seconds,
        )

    def _begin(self, now: float) -> DumpFile:
        try:
            segment, fd = self._spool.begin(self.interface, self.order.rotation.max_files)
        except OSError as error:
            raise SpoolFull(f"no segment can be begun: {error.strerror or error}") from error
        self._file = DumpFile(self.live, fd)
        self._segment = segment
        self._marks = []
        self._opened_at = self._flushed_at = now
        self.position, self.packets = self._file.position(), 0
        return self._file

    def _flush(self, now: float) -> None:
        if self._file is None or self._segment is None:
            return
        self._flushed_at = now
        if not self._file.flush():
            self._give_up()
            raise SpoolFull("the spool takes no more bytes")
        self._dirty = False
        self._spool.grow(self._segment, self.position, self._marks[:])
        self._marks = self._marks[-1:]

    def _complete(self) -> None:
        """End the open segment."""
        if self._file is None or self._segment is None:
            return
        if not self._file.flush():
            self._give_up()
            raise SpoolFull("the spool takes no more bytes")
        self._file.close()
        segment = self._segment
        self._spool.grow(segment, self.position, self._marks[:])
        position, packets = self.position, self.packets
        self._reset()
        self._spool.complete(segment, position, packets)
        self._spool.spool.enforce()

    def _give_up(self) -> None:
        """End a segment that could not be written whole: keep its whole records."""
        if self._file is None or self._segment is None:
            return
        self._file.close()
        segment = self._segment
        self._reset()
        try:
            scan = mend(self._spool.path(segment))
        except OSError as error:
            log.error("segment cannot be mended", capture=self._spool.id, error=error)
            scan = None
        self._spool.complete(segment, scan.end if scan else 0, scan.packets if scan else 0)

    def _reset(self) -> None:
        self._file = self._segment = None
        self._marks = []
        self.position = self.packets = 0
        self._dirty = False

    def silence(self, now: float) -> None:
        """Let no further packet in; `close` may be called from `close_at` on."""
        try:
            self.live.silence()
        except OSError as error:
            log.warning("interface not silenced", interface=self.interface, error=error)
        self.close_at = now + DRAIN_SECONDS

    def close(self, budget: Callable[[], tuple[int, int]], *, broken: bool = False) -> None:
        """Write what the kernel still holds, end the segment, close the handle; never raises."""
        try:
            while not broken:
                before = self._written()
                self.pump(time.monotonic(), budget)
                if self._written() == before:
                    break
        except (PcapError, SpoolFull) as error:
            log.warning("interface not drained", interface=self.interface, error=error)
        try:
            self._complete()
        except SpoolFull as error:
            log.error("segment not ended", interface=self.interface, error=error)
        stats = self.live.stats()
        with self._spool.spool.lock:
            self._spool.ledger.received += stats.received
            self._spool.ledger.dropped += stats.dropped
        self.live.close()

    def _written(self) -> tuple[int, int]:
        return self._spool.ledger.packets, self.packets


class Recorder:
    """One capture that is running: its streams, and why the missing ones are missing."""

    def __init__(
        self, spool: CaptureSpool, order: CaptureOrder, local_port: int, share: Callable[[], int]
    ) -> None:
        """Prepare; `open_missing` opens.

        Args:
            spool: Where the packets go.
            order: What is captured.
            local_port: Of our own uploads, which are left out.
            share: How many streams share the spool.
        """
        self.order = order
        self.streams: dict[str, Stream] = {}
        self.problems: dict[str, Problem] = {}
        self._spool = spool
        self._local_port = local_port
        self._share = share
        self._fault = _fault_of(order.filter)
        self._looked = False

    @property
    def spool(self) -> CaptureSpool:
        return self._spool

    def adjust(self, order: CaptureOrder) -> None:
        """Go on under other limits."""
        self.order = order
        for stream in self.streams.values():
            stream.order = order

    def budget(self) -> tuple[int, int]:
        """Packets and bytes that the capture may still take."""
        limit, (packets, bytes_) = self.order.limit, self.written()
        return (
            limit.packets - packets if limit.packets else _UNLIMITED,
            limit.bytes - bytes_ if limit.bytes else _UNLIMITED,
        )

    def written(self) -> tuple[int, int]:
        """Packets and bytes over all lives of the worker."""
        ledger = self._spool.ledger
        packets, bytes_ = ledger.packets, ledger.bytes
        for stream in self.streams.values():
            packets += stream.packets
            # A segment without a packet is no segment yet.
            bytes_ += stream.position if stream.packets else 0
        return packets, bytes_

    def is_due(self, now: float) -> bool:
        """Whether there may be something to open."""
        problems = self.problems.values()
        return not self._looked or any(problem.retry_at <= now for problem in problems)

    def open_missing(self, states: dict[str, bool], now: float, *, links_changed: bool) -> None:
        """Open what is wanted and not open.

        Args:
            states: Interfaces that are there, and whether they are up.
            now: Monotonic clock.
            links_changed: The interfaces have changed: try them without waiting.
        """
        self._looked = True
        wanted: Iterable[str] = self.order.interfaces or interfaces.default(states)
        if not self.order.interfaces:
            self.problems = {
                name: problem for name, problem in self.problems.items() if name in states
            }
        for name in wanted:
            problem = self.problems.get(name)
            waits = problem is not None and problem.retry_at > now
            hopes = problem is not None and problem.reason is Reason.NO_INTERFACE and links_changed
            if name not in self.streams and (not waits or hopes):
                self._open(name, now)

    def _open(self, interface: str, now: float) -> None:
        try:
            if self._fault:
                raise FilterError(self._fault)  # noqa: TRY301 - told like libpcap's own
            live = LiveCapture(
                interface,
                snap=self.order.snap,
                expression=self.order.filter,
                unless=_own_traffic(self._local_port),
            )
        except FilterError as error:
            self.trouble(interface, Reason.BAD_FILTER, str(error), now)
        except NotPermitted as error:
            self.trouble(interface, Reason.NO_PRIVILEGE, f"{error} ({_capabilities()})", now)
        except NoSuchInterface as error:
            self.trouble(interface, Reason.NO_INTERFACE, str(error), now)
        except PcapError as error:
            self.trouble(interface, Reason.CAPTURE_ERROR, str(error), now)
        else:
            self.problems.pop(interface, None)
            self.streams[interface] = Stream(
                self._spool, self.order, interface, live, self._segment_limit
            )
            log.info(
                "interface opened",
                capture=self.order.id,
                interface=interface,
                linktype=live.linktype,
                nanoseconds=live.nanoseconds,
            )

    def _segment_limit(self, order: CaptureOrder) -> int:
        return rotation.segment_limit(
            order.rotation, spool_bytes=self._spool.spool.limit_bytes, streams=self._share()
        )

    def trouble(self, interface: str, reason: Reason, message: str, now: float) -> None:
        """Note why an interface is not captured."""
        known = self.problems.get(interface)
        if known is None or (known.reason, known.message) != (reason, message):
            log.error(
                "interface not captured",
                capture=self.order.id,
                interface=interface,
                reason=reason,
                message=message,
            )
        self.problems[interface] = Problem(reason, message, now + _RETRY_SECONDS[reason])

    def retry(self, interface: str) -> None:
        """The cause may be gone: try again at once."""
        problem = self.problems[interface]
        self.problems[interface] = Problem(problem.reason, problem.message, 0.0)

    def lose(self, interface: str, reason: Reason, message: str, now: float) -> None:
        """Close one interface that went wrong; it is tried again later."""
        stream = self.streams[interface]
        stream.close(self.budget, broken=reason is Reason.SPOOL_FULL)
        del self.streams[interface]
        self.trouble(interface, reason, message, now)

    def status(self) -> Status:
        """How it stands."""
        packets, bytes_ = self.written()
        received, dropped = self._spool.ledger.received, self._spool.ledger.dropped
        for stream in self.streams.values():
            stats = stream.live.stats()
            received += stats.received
            dropped += stats.dropped
        state, reason = (State.CAPTURING if packets else State.WAITING), Reason.NONE
        message = "; ".join(f"{name}: {each.message}" for name, each in self.problems.items())
        if not self.streams:
            state, reason = State.FAILED, Reason.NO_INTERFACE
            message = message or "there is no interface but lo"
            for problem in self.problems.values():
                reason = problem.reason
                break
        elif self._spool.looping:
            reason = Reason.LOOP
            message = (
                "what is recorded is our own upload, opened anew by a proxy in this pod: nothing "
                "more is shipped until the capture ends; exclude the proxy's port in its filter"
            )
        return Status(state, reason, message, packets, bytes_, received, dropped)


def _fault_of(expression: str) -> str:
    """Why an expression is refused before libpcap sees it: names would make it ask DNS."""
    try:
        check_expression(expression)
    except BadFilter as error:
        return str(error)
    return ""


def _own_traffic(local_port: int) -> str:
    return f"tcp port {local_port} or tcp port {COLLECTOR_PORT}"


def _capabilities() -> str:
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - a hot start
            lines = [line.split() for line in file if line.startswith("CapEff:")]
    except OSError as error:
        return str(error)
    effective = int(lines[0][1], 16) if lines else 0
    return f"uid {os.getuid()}, CAP_NET_RAW {'held' if effective >> 13 & 1 else 'missing'}"
