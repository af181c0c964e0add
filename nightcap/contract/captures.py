"""PacketCapture: what a person asks for, and what follows from it.

`PacketCapture` is the object as the API server stores it (`nightcap.contract.capture_objects`).
`resolve` turns its spec into `Settings`, all defaults filled in, or says everything that is
wrong with it.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from nightcap.contract import keys
from nightcap.contract.calico_selector import compile_selector
from nightcap.contract.capture_objects import (
    CALICO_LIMITS,
    CALICO_ROTATION,
    DEFAULT_DURATION,
    DEFAULT_MAX_SIZE,
    DEFAULT_TTL,
    BadCapture,
    FilterRule,
    LimitsSpec,
    PacketCapture,
    RotationSpec,
    Spec,
    parse_capture,
)
from nightcap.contract.filters import BadFilter, check_expression, expression_of_rules
from nightcap.contract.orders import MAX_SNAP, CaptureOrder, Limit, Rotation, is_interface
from nightcap.contract.quantities import MAX_BYTES, BadQuantity, parse_duration, parse_size
from nightcap.contract.selectors import BadSelector, check_selector

FOREVER = 253402300799.0
"""End of a capture that has none: the last second that a calendar of four digits holds."""
# What orders can carry (`orders.parse_orders` refuses an entry beyond these).
MIN_SEGMENT_BYTES = 4096
MAX_SEGMENT_BYTES = 2**40
MIN_SEGMENT_SECONDS = 1.0
MAX_FILES = 10_000
MAX_INTERFACES = 64


class WhenFull(StrEnum):
    """What happens when retrieval holds as much of a pod as `limits.maxSize` allows."""

    FINISH = "Finish"
    DROP_OLDEST = "DropOldest"


@dataclass(frozen=True, slots=True)
class Settings:
    """A spec with all defaults filled in.

    Attributes:
        filter: pcap-filter(7) expression, not compiled yet; empty for every packet.
        starts_at: Seconds since the epoch.
        ends_at: Seconds since the epoch; `FOREVER` for a capture without an end.
        ttl_seconds: Time from the end to the deletion of object and files; may be infinity.
        starts_at_once: No start time was given: it runs from when it exists, also for a
            program whose clock is behind the API server's.
    """

    filter: str
    starts_at: float
    ends_at: float
    suspended: bool
    interfaces: tuple[str, ...]
    snap: int
    rotation: Rotation
    limit: Limit
    when_full: WhenFull
    ttl_seconds: float
    starts_at_once: bool = False

    def is_running(self, now: float) -> bool:
        """Whether packets are to be recorded at `now` (seconds since the epoch)."""
        return not self.suspended and self.has_started(now) and not self.has_ended(now)

    def has_started(self, now: float) -> bool:
        return self.starts_at_once or now >= self.starts_at

    def has_ended(self, now: float) -> bool:
        return now >= self.ends_at

    @property
    def has_end(self) -> bool:
        return self.ends_at < FOREVER


def resolve(capture: PacketCapture) -> Settings:
    """Fill in all defaults of a capture's spec.

    `startTime` defaults to the object's creation; `endTime` to start + `duration`, and in
    projectcalico.org to never.

    Raises:
        BadCapture: with every fault that can be told without compiling the filter.
    """
    spec = capture.spec
    faults: list[str] = []
    expression = _filter(spec, faults)
    _check_selection(capture, faults)
    starts_at, ends_at = _window(capture, faults)
    rotation = Rotation(
        max_bytes=_size(
            "rotation.maxFileSize",
            spec.rotation.max_file_size,
            MIN_SEGMENT_BYTES,
            MAX_SEGMENT_BYTES,
            faults,
        ),
        max_seconds=_duration(
            "rotation.maxFileAge", spec.rotation.max_file_age, MIN_SEGMENT_SECONDS, faults
        ),
        max_files=_whole("rotation.maxFiles", spec.rotation.max_files, 1, MAX_FILES, faults),
    )
    limit = Limit(
        bytes=_size("limits.maxSize", spec.limits.max_size, 0, MAX_BYTES, faults),
        packets=_whole("limits.maxPackets", spec.limits.max_packets, 0, 2**53, faults),
    )
    if spec.limits.when_full not in tuple(WhenFull):
        faults.append(
            f"limits.whenFull: {spec.limits.when_full[:40]!r} must be Finish or DropOldest"
        )
    snap = _whole("snapLength", spec.snap_length, 1, MAX_SNAP, faults)
    ttl_seconds = math.inf
    if not capture.is_calico:
        ttl_seconds = _duration("ttlAfterFinished", spec.ttl_after_finished, 0, faults)
    if len(spec.interfaces) > MAX_INTERFACES:
        faults.append(
            f"interfaces: {len(spec.interfaces)} are named; at most {MAX_INTERFACES} are allowed"
        )
    faults.extend(
        f"interfaces: {name[:40]!r} is no name of a network interface"
        for name in spec.interfaces
        if not is_interface(name)
    )
    if faults:
        raise BadCapture(tuple(faults))
    return Settings(
        filter=expression,
        starts_at=starts_at,
        ends_at=ends_at,
        suspended=spec.suspend,
        interfaces=tuple(dict.fromkeys(spec.interfaces)),
        snap=snap,
        rotation=rotation,
        limit=limit,
        when_full=WhenFull(spec.limits.when_full),
        ttl_seconds=ttl_seconds,
        starts_at_once=spec.start_time is None,
    )


def order_of(capture: PacketCapture, settings: Settings, until: float) -> CaptureOrder:
    """The entry of a pod's orders that stands for a capture.

    A ring (`DropOldest`) carries no limit of bytes: retrieval drops the oldest, and the
    sidecar goes on.
    """
    limit = settings.limit
    if settings.when_full is WhenFull.DROP_OLDEST:
        limit = Limit(bytes=0, packets=limit.packets)
    return CaptureOrder(
        id=capture.metadata.uid,
        namespace=capture.metadata.namespace,
        name=capture.metadata.name,
        filter=settings.filter,
        snap=settings.snap,
        interfaces=settings.interfaces,
        rotation=settings.rotation,
        limit=limit,
        until=int(until),
    )


def _filter(spec: Spec, faults: list[str]) -> str:
    if spec.filter.strip() and spec.filters:
        faults.append("filter and filters: give one of them, not both")
    try:
        rules = [(rule.protocol, rule.ports) for rule in spec.filters]
        expression = expression_of_rules(rules) or spec.filter.strip()
        check_expression(expression)
    except BadFilter as error:
        faults.append(str(error))
        return ""
    return expression


def _check_selection(capture: PacketCapture, faults: list[str]) -> None:
    spec = capture.spec
    if isinstance(spec.selector, str):
        _check_sentence(spec.selector, capture, faults)
        return
    if spec.selector is None:
        return
    try:
        check_selector(spec.selector)
    except BadSelector as error:
        faults.append(str(error))
    if spec.pod_names and (spec.selector.match_labels or spec.selector.match_expressions):
        faults.append("selector and podNames: give one of them, not both")


def _check_sentence(selector: str, capture: PacketCapture, faults: list[str]) -> None:
    if not capture.is_calico:
        faults.append(
            f"selector: {selector[:40]!r} is text; {keys.GROUP} takes matchLabels and "
            f"matchExpressions, text is for {keys.CALICO_GROUP}"
        )
        return
    try:
        compile_selector(selector)
    except BadSelector as error:
        faults.append(str(error))


def _window(capture: PacketCapture, faults: list[str]) -> tuple[float, float]:
    spec = capture.spec
    created = capture.metadata.creation_timestamp
    starts = spec.start_time or created
    starts_at = _epoch(starts) if starts else 0.0
    if spec.end_time is not None and spec.duration is not None:
        faults.append("endTime and duration: give one of them, not both")
    if spec.end_time is not None:
        ends_at = _epoch(spec.end_time)
        if spec.start_time is not None and ends_at <= starts_at:
            faults.append("endTime: must be after startTime")
        # A time beyond it would be no number that everybody can read.
        return starts_at, min(ends_at, FOREVER)
    if capture.is_calico:
        return starts_at, FOREVER
    duration = DEFAULT_DURATION if spec.duration is None else spec.duration
    return starts_at, starts_at + _duration("duration", duration, 0, faults)


def _epoch(at: datetime) -> float:
    # The API server's date-time also lets a time without a zone pass; it means UTC on
    # every machine, not the zone of whoever reads it.
    return at.timestamp() if at.tzinfo else at.replace(tzinfo=UTC).timestamp()


def _duration(field: str, text: str, least: float, faults: list[str]) -> float:
    try:
        seconds = parse_duration(text)
    except BadQuantity as error:
        faults.append(f"{field}: {error}")
        return 0.0
    if seconds < least:
        faults.append(f"{field}: {text!r} must be at least {least:g}s")
    return seconds


def _size(field: str, value: str | int, least: int, most: int, faults: list[str]) -> int:
    try:
        size = parse_size(value)
    except BadQuantity as error:
        faults.append(f"{field}: {error}")
        return 0
    if not least <= size <= most:
        faults.append(f"{field}: {value!s} is {size} bytes; must be from {least} to {most}")
    return size


def _whole(field: str, value: int, least: int, most: int, faults: list[str]) -> int:
    if not least <= value <= most:
        faults.append(f"{field}: {value} must be from {least} to {most}")
    return value


__all__ = [
    "CALICO_LIMITS",
    "CALICO_ROTATION",
    "DEFAULT_DURATION",
    "DEFAULT_MAX_SIZE",
    "DEFAULT_TTL",
    "FOREVER",
    "BadCapture",
    "FilterRule",
    "LimitsSpec",
    "PacketCapture",
    "RotationSpec",
    "Settings",
    "Spec",
    "WhenFull",
    "order_of",
    "parse_capture",
    "resolve",
]
