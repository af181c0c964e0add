"""Ceilings: what captures of a namespace may come to at most, set by whoever runs Nightcap.

A `CaptureCeiling` lies in Nightcap's own namespace, where those whom it limits cannot write.
What a capture does not say is lowered to the ceiling; what it asks for beyond is refused, at
admission, again by the controller, and by retrieval, which trusts no orders.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec
from msgspec import Struct

from nightcap.contract.assignment import ResolvedCapture
from nightcap.contract.captures import (
    CALICO_LIMITS,
    DEFAULT_DURATION,
    DEFAULT_MAX_SIZE,
    PacketCapture,
    Settings,
)
from nightcap.contract.objects import ObjectMeta
from nightcap.contract.quantities import parse_duration, parse_size

PLURAL = "captureceilings"

_Number = TypeVar("_Number", int, float)


class CeilingSpec(Struct, frozen=True, rename="camel"):
    """`spec` of a CaptureCeiling; what is absent is not limited.

    Attributes:
        namespaces: Where it holds; empty for every namespace that no ceiling names.
        max_captures: Captures that run or wait for their time at once.
        max_duration: Between a capture's start and its end.
        max_size: `limits.maxSize`, per pod.
        interfaces: Those that may be recorded.
        snap_length: Bytes kept of each packet at most, whatever a capture asks for.
    """

    namespaces: tuple[str, ...] = ()
    max_captures: int | None = None
    max_duration: str | None = None
    max_size: str | int | None = None
    interfaces: tuple[str, ...] = ()
    snap_length: int | None = None


class CaptureCeiling(Struct, frozen=True):
    """A ceiling as the API server stores it."""

    metadata: ObjectMeta = ObjectMeta()
    spec: CeilingSpec = CeilingSpec()


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What holds in one namespace.

    Attributes:
        names: Of the objects that it comes from, for messages.
        interfaces: None where any may be recorded.
    """

    names: tuple[str, ...]
    max_captures: int | None = None
    max_seconds: float | None = None
    max_bytes: int | None = None
    interfaces: frozenset[str] | None = None
    snap: int | None = None


_DECODER = msgspec.json.Decoder(CaptureCeiling)


def parse_ceiling(raw: bytes | msgspec.Raw) -> CaptureCeiling:
    """Read a ceiling as the API server sends it.

    Raises:
        ValueError: it is not of the kind that the schema asks for, or a quantity is bad.
    """
    ceiling = _DECODER.decode(raw)
    _read((ceiling,))
    return ceiling


def ceiling_of(namespace: str, ceilings: Iterable[CaptureCeiling]) -> Ceiling | None:
    """What holds in a namespace: those that name it, else those that name none.

    Of several the strictest holds, field by field.

    Args:
        namespace: Its name.
        ceilings: Every ceiling of Nightcap's own namespace.
    """
    everywhere, named = [], []
    for ceiling in ceilings:
        if namespace in ceiling.spec.namespaces:
            named.append(ceiling)
        elif not ceiling.spec.namespaces:
            everywhere.append(ceiling)
    chosen = named or everywhere
    return _read(chosen) if chosen else None


def _read(chosen: Iterable[CaptureCeiling]) -> Ceiling:
    chosen = sorted(chosen, key=lambda ceiling: ceiling.metadata.name)
    specs = [ceiling.spec for ceiling in chosen]
    lists = [frozenset(spec.interfaces) for spec in specs if spec.interfaces]
    return Ceiling(
        names=tuple(ceiling.metadata.name for ceiling in chosen),
        max_captures=_least(spec.max_captures for spec in specs),
        max_seconds=_least(parse_duration(s.max_duration) for s in specs if s.max_duration),
        max_bytes=_least(parse_size(s.max_size) for s in specs if s.max_size is not None),
        interfaces=frozenset.intersection(*lists) if lists else None,
        snap=_least(spec.snap_length for spec in specs),
    )


def _least(values: Iterable[_Number | None]) -> _Number | None:
    return min((value for value in values if value is not None), default=None)


def under_ceiling(
    capture: PacketCapture, settings: Settings, ceiling: Ceiling | None
) -> tuple[Settings, tuple[str, ...]]:
    """Lower what a capture leaves open, and say what it asks for beyond.

    Args:
        capture: The capture.
        settings: Its spec with all defaults.
        ceiling: What holds in its namespace.

    Returns:
        (the settings that hold, one sentence for each rule that is broken, which begins with
        the rule's name).
    """
    if ceiling is None:
        return settings, ()
    broken: list[str] = []
    settings = _lower_end(capture, settings, ceiling, broken)
    settings = _lower_size(capture, settings, ceiling, broken)
    settings = _lower_interfaces(settings, ceiling, broken)
    if ceiling.snap is not None:
        settings = replace(settings, snap=min(settings.snap, ceiling.snap))
    return settings, tuple(broken)


def _lower_end(
    capture: PacketCapture, settings: Settings, ceiling: Ceiling, broken: list[str]
) -> Settings:
    most, spec = ceiling.max_seconds, capture.spec
    if most is None or settings.ends_at - settings.starts_at <= most:
        return settings
    # What stands for an annotation says the default aloud.
    is_default = capture.source is not None and spec.duration == DEFAULT_DURATION
    if (spec.duration is None or is_default) and spec.end_time is None:
        return replace(settings, ends_at=settings.starts_at + most)
    broken.append(_sentence("maxDuration", "the capture lasts longer than", f"{most:g}s", ceiling))
    return settings


def _lower_size(
    capture: PacketCapture, settings: Settings, ceiling: Ceiling, broken: list[str]
) -> Settings:
    most, asked = ceiling.max_bytes, capture.spec.limits.max_size
    if most is None or 0 < settings.limit.bytes <= most:
        return settings
    # The API server fills the default in: it cannot be told from the same value that was typed.
    is_default = asked in (DEFAULT_MAX_SIZE, CALICO_LIMITS.max_size if capture.is_calico else "")
    if is_default:
        return replace(settings, limit=settings.limit._replace(bytes=most))
    what = f"limits.maxSize {asked} is" if settings.limit.bytes else "limits.maxSize 0 is no limit,"
    broken.append(_sentence("maxSize", f"{what} more than", f"{most} bytes", ceiling))
    return settings


def _lower_interfaces(settings: Settings, ceiling: Ceiling, broken: list[str]) -> Settings:
    allowed = ceiling.interfaces
    if allowed is None:
        return settings
    if not settings.interfaces and allowed:
        return replace(settings, interfaces=tuple(sorted(allowed)))
    others = sorted(set(settings.interfaces) - allowed)
    if others or not allowed:
        what = f"{', '.join(others) or 'no interface'} is not among"
        broken.append(_sentence("interfaces", what, ", ".join(sorted(allowed)) or "none", ceiling))
    return settings


def beyond_number(
    captures: Iterable[tuple[PacketCapture, Settings]], ceiling: Ceiling | None, now: float
) -> dict[str, str]:
    """The captures of a namespace for which `maxCaptures` leaves no place: the newest.

    Args:
        captures: Those of one namespace that are within all other rules.
        ceiling: What holds there.
        now: Seconds since the epoch.

    Returns:
        Uid -> what is said of it.
    """
    if ceiling is None or ceiling.max_captures is None:
        return {}
    live = [capture for capture, settings in captures if is_live(settings, now)]
    live.sort(key=_age)
    most = f"{ceiling.max_captures} at once"
    said = _sentence("maxCaptures", "older captures run or wait here already;", most, ceiling)
    return {capture.metadata.uid: said for capture in live[ceiling.max_captures :]}


def within_ceiling(
    captures: Iterable[ResolvedCapture], ceiling: Ceiling | None, now: float
) -> tuple[ResolvedCapture, ...]:
    """The captures of a namespace that may run, with the settings that hold.

    Args:
        captures: Those of one namespace.
        ceiling: What holds there.
        now: Seconds since the epoch.
    """
    if ceiling is None:
        return tuple(captures)
    within = []
    for resolved in captures:
        settings, broken = under_ceiling(resolved.capture, resolved.settings, ceiling)
        if not broken:
            within.append(ResolvedCapture(resolved.capture, settings))
    beyond = beyond_number(((item.capture, item.settings) for item in within), ceiling, now)
    return tuple(item for item in within if item.capture.metadata.uid not in beyond)


def is_live(settings: Settings, now: float) -> bool:
    """Whether a capture runs or waits for its time, and so takes a place."""
    return not settings.suspended and not settings.has_ended(now)


def _age(capture: PacketCapture) -> tuple[float, str]:
    created = capture.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, capture.metadata.uid)


def _sentence(rule: str, what: str, most: str, ceiling: Ceiling) -> str:
    objects = ", ".join(ceiling.names)
    return f"{rule}: {what} {most}, which is allowed in this namespace (ceiling {objects})"
