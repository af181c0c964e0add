"""One capture that is running: which interfaces it wants, has, and cannot have, and why."""

import os
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from nightcap.contract.filters import BadFilter, check_expression
from nightcap.contract.orders import CaptureOrder
from nightcap.contract.reports import Reason, State
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.pcap.handle import LiveCapture, NoSuchInterface, NotPermitted
from nightcap.pcap.libpcap import FilterError, PcapError
from sidecar import interfaces, log, rotation
from sidecar.filter_check import FilterCheck
from sidecar.libpump import UNLIMITED, Budget
from sidecar.spool import CaptureSpool, Status
from sidecar.stream import NEVER, Stream, ring_bytes

_RETRY_SECONDS: Final = {
    Reason.BAD_FILTER: NEVER,  # until the orders change
    Reason.NO_INTERFACE: 2.0,
    Reason.NO_PRIVILEGE: 30.0,
    Reason.SPOOL_FULL: 2.0,
    Reason.CAPTURE_ERROR: 5.0,
}


class Problem(NamedTuple):
    """Why an interface is not being captured, and when it is tried again."""

    reason: Reason
    message: str
    retry_at: float


class Recorder:
    """One capture that is running: its streams, and why the missing ones are missing."""

    def __init__(
        self,
        spool: CaptureSpool,
        order: CaptureOrder,
        local_port: int,
        others: Callable[[], list[Stream]],
        leaving: Callable[[], list[Stream]],
        wake: Callable[[], None],
    ) -> None:
        """Prepare; `open_missing` opens.

        Args:
            spool: Where the packets go.
            order: What is captured.
            local_port: Of our own uploads, which are left out.
            others: All streams, which share the spool and the memory for rings.
            leaving: Those of this capture under earlier orders, whose last packets are awaited.
            wake: Called from another thread when `open_missing` has more to do.
        """
        self.order = order
        self.streams: dict[str, Stream] = {}
        self.problems: dict[str, Problem] = {}
        self._leaving = leaving
        self._spool = spool
        self._local_port = local_port
        self._others = others
        self._budget = Budget()
        self.refill()
        self._fault = _fault_of(order.filter)
        self._check = FilterCheck("" if self._fault else order.filter, wake)
        self._looked = False

    @property
    def spool(self) -> CaptureSpool:
        return self._spool

    @property
    def is_opening(self) -> bool:
        """Whether it cannot be opened yet, for a reason that passes by itself."""
        return not self._check.is_done

    def adjust(self, order: CaptureOrder) -> None:
        """Go on under other limits."""
        self.order = order
        self.refill()
        for stream in self.streams.values():
            stream.adjust(order)

    def refill(self) -> None:
        """Let the streams take what the limits leave; each packet of any counts down from there."""
        limit, (packets, bytes_) = self.order.limit, self.written()
        self._budget.packets = limit.packets - packets if limit.packets else UNLIMITED
        self._budget.bytes = limit.bytes - bytes_ if limit.bytes else UNLIMITED

    def written(self) -> tuple[int, int]:
        """Packets and bytes over all lives of the worker."""
        ledger = self._spool.ledger
        packets, bytes_ = ledger.packets, ledger.bytes
        for stream in self._counting():
            packets += stream.packets
            # A segment without a packet is no segment yet.
            bytes_ += stream.position if stream.packets else 0
        return packets, bytes_

    def _counting(self) -> list[Stream]:
        """Streams whose counters are not in the ledger yet."""
        return [*self.streams.values(), *self._leaving()]

    def is_due(self, now: float) -> bool:
        """Whether there may be something to open."""
        return not self._looked or any(
            problem.retry_at <= now and name not in self.streams
            for name, problem in self.problems.items()
        )

    def open_missing(self, states: dict[str, bool], now: float, *, links_changed: bool) -> None:
        """Open what is wanted and not open.

        Args:
            states: Interfaces that are there, and whether they are up.
            now: Monotonic clock.
            links_changed: The interfaces have changed: try them without waiting.
        """
        if self.is_opening:
            return
        self._looked = True
        wanted: Iterable[str] = self.order.interfaces or interfaces.default(states)
        if not self.order.interfaces:
            self.problems = {
                name: problem for name, problem in self.problems.items() if name in states
            }
        due = [name for name in wanted if self._is_worth_a_try(name, now, links_changed)]
        for number, name in enumerate(due):
            self._open(name, now, wanted=len(due) - number)

    def _is_worth_a_try(self, name: str, now: float, links_changed: bool) -> bool:
        problem = self.problems.get(name)
        waits = problem is not None and problem.retry_at > now
        hopes = problem is not None and problem.reason is Reason.NO_INTERFACE and links_changed
        return name not in self.streams and (not waits or hopes)

    def _open(self, interface: str, now: float, *, wanted: int) -> None:
        try:
            if fault := self._fault or self._check.fault:
                raise FilterError(fault)  # noqa: TRY301 - told like libpcap's own
            taken = [stream.live.ring_bytes for stream in self._others()]
            ring = ring_bytes(taken, wanted)
            if not ring:
                raise PcapError(_NO_RING.format(len(taken)))  # noqa: TRY301 - likewise
            live = LiveCapture(
                interface,
                snap=self.order.snap,
                expression=self.order.filter,
                unless=_own_traffic(self._local_port),
                ring_bytes=ring,
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
                self._spool,
                self.order,
                interface,
                live,
                budget=self._budget,
                limit_of_segment=self._segment_limit,
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
            order.rotation,
            spool_bytes=self._spool.spool.limit_bytes,
            streams=len(self._others()),
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

    def lose(self, interface: str, message: str, now: float) -> None:
        """Close one interface that went wrong; it is tried again later."""
        stream = self.streams[interface]
        stream.close()
        del self.streams[interface]
        self.trouble(interface, Reason.CAPTURE_ERROR, message, now)

    def block(self, interface: str, message: str, now: float, *, again: bool) -> None:
        """The spool takes nothing: leave the packets where they are, and have them counted.

        Args:
            interface: Whose packets have no place.
            message: What the spool said.
            now: Monotonic clock.
            again: There is room now; try again at once.
        """
        self.trouble(interface, Reason.SPOOL_FULL, message, now)
        if again:
            del self.problems[interface]
        else:
            self.streams[interface].blocked_until = self.problems[interface].retry_at

    def _solved(self) -> None:
        """Forget the troubles of streams that write again."""
        for name, stream in self.streams.items():
            if stream.packets and name in self.problems:
                del self.problems[name]

    def status(self) -> Status:
        """How it stands."""
        packets, bytes_ = self.written()
        received, dropped = self._spool.ledger.received, self._spool.ledger.dropped
        for stream in self._counting():
            stats = stream.live.stats()
            received += stats.received
            dropped += stats.dropped
        self._solved()
        state, reason = (State.CAPTURING if packets else State.WAITING), Reason.NONE
        message = "; ".join(f"{name}: {each.message}" for name, each in self.problems.items())
        if self.is_opening:
            message = "the filter is long: whether it can be used is being found out"
            if self._check.doubt:
                message += f"; {self._check.doubt}"
        elif self.streams.keys() <= self.problems.keys():
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
        else:
            for problem in self.problems.values():
                reason = problem.reason  # of an interface beside those that are recorded
                break
        return Status(state, reason, message, packets, bytes_, received, dropped)


def _fault_of(expression: str) -> str:
    """Why an expression is refused before libpcap sees it: names would make it ask DNS."""
    try:
        check_expression(expression)
    except BadFilter as error:
        return str(error)
    return ""


_NO_RING: Final = (
    "{} interfaces are captured in this pod already, which is all that there is memory for; "
    "name fewer interfaces, or end another capture of this pod"
)


def _own_traffic(local_port: int) -> str:
    return f"tcp port {local_port} or tcp port {COLLECTOR_PORT}"


def _capabilities() -> str:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("CapEff:")]
    except OSError as error:
        return str(error)
    effective = int(lines[0][1], 16) if lines else 0
    return f"uid {os.getuid()}, CAP_NET_RAW {'held' if effective >> 13 & 1 else 'missing'}"
