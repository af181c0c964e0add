"""Reports: what a sidecar says of one capture in its pod. Cumulative; the highest `seq` wins.

Travels as one header of JSON (ASCII, at most 4 KiB) with every upload. Needs the
standard library alone: sidecars write it.
"""

import json
from enum import StrEnum
from typing import Any, Final, NamedTuple

from nightcap.contract.orders import is_interface

REPORT_VERSION: Final = 1
MAX_REPORT_BYTES: Final = 4096
MAX_GAPS: Final = 16
"""The newest that a report names; its totals hold all."""


class State(StrEnum):
    """Where a capture in one pod stands."""

    WAITING = "waiting"
    """The interfaces are open, no packet has matched yet."""
    CAPTURING = "capturing"
    FINISHED = "finished"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a capture is in its state; a closed list that programs may match."""

    NONE = ""
    TIME = "time"
    """`until` has come."""
    SIZE = "size"
    PACKETS = "packets"
    ENDED = "ended"
    """It is not in the orders any more."""
    TERMINATED = "terminated"
    """The pod is going."""
    BAD_ORDERS = "bad-orders"
    BAD_FILTER = "bad-filter"
    NO_PRIVILEGE = "no-privilege"
    NO_INTERFACE = "no-interface"
    SPOOL_FULL = "spool-full"
    CAPTURE_ERROR = "capture-error"
    LOOP = "loop"
    """Something in the pod (a mesh proxy) re-opens our upload, so that we would capture it."""


class BadReport(ValueError):
    """A report that cannot be read."""


class Gap(NamedTuple):
    """Segments of one interface, one after the other, that were dropped before they were shipped.

    Attributes:
        first: Number of the first of them.
        last: Number of the last.
        offset: So many bytes of the first one were shipped; of the others none.
        bytes: How many are missing.
    """

    interface: str
    first: int
    last: int
    offset: int
    bytes: int

    @property
    def which(self) -> str:
        """The segments, for people."""
        numbers = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        behind = f" behind byte {self.offset}" if self.offset else ""
        return f"{self.interface} {numbers}{behind}"

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        return f"{self.bytes} bytes were dropped before they were shipped: segments {self.which}"


class Lost(NamedTuple):
    """What the spool had to drop before it was shipped.

    Attributes:
        segments: Of how many something is missing.
        bytes: How many are missing of all of them.
        gaps: Which; the newest, in the order in which they came about.
    """

    segments: int = 0
    bytes: int = 0
    gaps: tuple[Gap, ...] = ()


class Report(NamedTuple):
    """What a sidecar says of one capture.

    Attributes:
        seq: Grows with every report of this capture in this pod.
        at: The node's clock when it was written, seconds since the epoch.
        packets: Packets recorded.
        bytes: Bytes of capture files written.
        received: Packets that passed the filter, as the kernel counts.
        dropped: Packets that the kernel dropped for want of room.
        backlog: Bytes written and not yet durable at the collector.
        shipped: True when nothing is left to ship and nothing will come.
    """

    seq: int
    at: float
    state: State
    reason: Reason = Reason.NONE
    message: str = ""
    packets: int = 0
    bytes: int = 0
    received: int = 0
    dropped: int = 0
    lost: Lost = Lost()
    backlog: int = 0
    shipped: bool = False
    v: int = REPORT_VERSION


def dump_report(report: Report) -> str:
    """Write a report as one line of ASCII JSON of at most 4 KiB.

    A long message is cut; where that does not suffice, the oldest gaps are left out.
    """
    text = json.dumps(report_value(report), separators=(",", ":"))
    most, gaps = 1024, MAX_GAPS
    while len(text) > MAX_REPORT_BYTES:
        lost = report.lost._replace(gaps=report.lost.gaps[-gaps:] if gaps else ())
        short = report._replace(message=report.message[:most], lost=lost)
        text = json.dumps(report_value(short), separators=(",", ":"))
        if most > 64 or not gaps:
            most //= 2
        else:
            gaps //= 2
    return text


def report_value(report: Report) -> dict[str, Any]:
    """The report as JSON has it."""
    return {**report._asdict(), "lost": lost_value(report.lost)}


def lost_value(lost: Lost) -> dict[str, Any]:
    """What was lost as JSON has it; gaps only where there are any."""
    value: dict[str, Any] = {"segments": lost.segments, "bytes": lost.bytes}
    if lost.gaps:
        value["gaps"] = [gap._asdict() for gap in lost.gaps]
    return value


def parse_lost(value: object) -> Lost:
    """The counterpart of `lost_value`; of more gaps than a report names it reads the newest.

    Raises:
        BadReport: a field is of the wrong kind.
    """
    if not isinstance(value, dict):
        raise BadReport("lost: must be an object")
    gaps = value.get("gaps", [])
    if not isinstance(gaps, list):
        raise BadReport("lost.gaps: must be a list")
    newest = tuple(map(_gap, gaps[-MAX_GAPS:]))
    return Lost(_count(value, "segments"), _count(value, "bytes"), newest)


def _gap(value: object) -> Gap:
    if not isinstance(value, dict):
        raise BadReport("lost.gaps: each must be an object")
    interface = value.get("interface")
    if not isinstance(interface, str) or not is_interface(interface):
        raise BadReport(f"lost.gaps: {str(interface)[:40]!r} is no name of an interface")
    return Gap(interface, *(_count(value, field) for field in Gap._fields[1:]))


def parse_report(text: str) -> Report:
    """Read a report; fields and values that a later release added are passed over.

    Raises:
        BadReport: too long, not JSON, or a field of the wrong kind.
    """
    if len(text) > MAX_REPORT_BYTES:
        raise BadReport(f"report has {len(text)} bytes; at most {MAX_REPORT_BYTES} are read")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadReport(f"report is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadReport("report must be an object")
    lost = parse_lost(value.get("lost", {}))
    try:
        reason = Reason(value.get("reason", ""))
    except ValueError:
        reason = Reason.NONE  # a later release's reason; its message still tells
    message = value.get("message", "")
    return Report(
        seq=_count(value, "seq"),
        at=_clock(value),
        state=_state(value),
        reason=reason,
        message=message[:2048] if isinstance(message, str) else "",
        packets=_count(value, "packets"),
        bytes=_count(value, "bytes"),
        received=_count(value, "received"),
        dropped=_count(value, "dropped"),
        lost=lost,
        backlog=_count(value, "backlog"),
        shipped=value.get("shipped") is True,
        v=_count(value, "v"),
    )


def _state(value: dict[str, Any]) -> State:
    try:
        return State(str(value.get("state")))
    except ValueError as error:
        raise BadReport(f"state: {str(value.get('state'))[:40]!r} is unknown") from error


def _clock(value: dict[str, Any]) -> float:
    at = value.get("at", 0)
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at < 2**53:
        raise BadReport(f"at: {str(at)[:40]} must be seconds since the epoch")
    return float(at)


def _count(value: dict[str, Any], key: str) -> int:
    count = value.get(key, 0)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 2**63:
        raise BadReport(f"{key}: {str(count)[:40]} must be a whole number, 0 or more")
    return count
