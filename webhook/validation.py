"""What people are told of a capture or an annotation before it is stored. Pure.

A capture is refused for faults that the write brings in. Nobody is kept from stopping
one: `suspend`, metadata and deletion always pass, also where an older spec is bad.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from nightcap.contract import keys
from nightcap.contract.annotation_options import parse_options
from nightcap.contract.assignment import ResolvedCapture
from nightcap.contract.captures import (
    BadCapture,
    PacketCapture,
    Settings,
    parse_capture,
    resolve,
)
from nightcap.contract.ceilings import Ceiling, beyond_number, is_live, under_ceiling
from nightcap.contract.objects import ObjectMeta
from webhook.review import Request

CheckFilter = Callable[[str], str | None]
"""Compiles an expression within bounds; libpcap's words when it does not compile."""


_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)


class _Object(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: dict[str, Any] | None = None


_PREFIX: Final = f"{keys.GROUP}/"
_OBJECT: msgspec.json.Decoder[_Object | None] = msgspec.json.Decoder(_Object | None)


def capture_faults(request: Request, check_filter: CheckFilter) -> tuple[str, ...]:
    """What is wrong with a PacketCapture that is being created or updated.

    Args:
        request: The admission request.
        check_filter: Asked only when the filter is new and the rest of the spec is good.

    Returns:
        One sentence each; empty when the write may go on.
    """
    if request.operation not in ("CREATE", "UPDATE"):
        return ()
    if request.operation == "UPDATE" and _only_stops(request):
        return ()
    settings, faults = _resolve(request.object)
    updates = request.operation == "UPDATE"
    old_settings, old_faults = _resolve(request.old_object) if updates else (None, ())
    if settings is not None and settings.filter and not _same_filter(settings, old_settings):
        said = check_filter(settings.filter)
        if said is not None:
            faults = (f"filter {settings.filter[:80]!r}: {said}",)
    return tuple(fault for fault in faults if fault not in old_faults)


def ceiling_faults(
    request: Request, ceiling: Ceiling, running: Iterable[ResolvedCapture], now: float
) -> tuple[str, ...]:
    """What a capture that is being created or updated asks for beyond its namespace's ceiling.

    Args:
        request: The admission request.
        ceiling: What holds in the namespace.
        running: The captures that are there, within the ceiling.
        now: Seconds since the epoch.

    Returns:
        One sentence for each rule, which begins with the rule's name. Nothing is said of what
        the old object asked for as well while it ran, and never of one that is suspended.
    """
    if request.operation not in ("CREATE", "UPDATE"):
        return ()
    new = _parse(request.object, now)
    if new is None or not is_live(new.settings, now) or _is_leaving(new.capture):
        return ()
    old = _parse(request.old_object, now) if request.operation == "UPDATE" else None
    had_place = old is not None and is_live(old.settings, now)
    _, broken = under_ceiling(new.capture, new.settings, ceiling)
    if old is not None and had_place:
        _, before = under_ceiling(old.capture, old.settings, ceiling)
        return tuple(fault for fault in broken if fault not in before)
    if broken or ceiling.max_captures is None:
        return broken
    metadata = new.capture.metadata
    others = [
        (item.capture, item.settings)
        for item in running
        if (item.capture.group, item.capture.metadata.name) != (new.capture.group, metadata.name)
    ]
    # Whatever its age: of those that are there none may lose its place to it.
    youngest = msgspec.structs.replace(
        new.capture,
        metadata=msgspec.structs.replace(metadata, creation_timestamp=_LAST, uid=""),
    )
    return tuple(beyond_number([*others, (youngest, new.settings)], ceiling, now).values())


def annotation_faults(request: Request, check_filter: CheckFilter | None) -> tuple[str, ...]:
    """What is wrong with the annotations of a pod or namespace; empty when they did not change.

    Args:
        request: The admission request.
        check_filter: None where there is no time to compile.
    """
    annotations = _nightcap_annotations(request.object)
    if not annotations or annotations == _nightcap_annotations(request.old_object):
        return ()
    return _faults_of(annotations, check_filter)


def new_pod_faults(annotations: dict[str, str]) -> tuple[str, ...]:
    """What is wrong with the annotations of a pod that is being created; compiles nothing."""
    ours = _of_nightcap(annotations)
    return _faults_of(ours, None) if ours else ()


def _faults_of(annotations: dict[str, str], check_filter: CheckFilter | None) -> tuple[str, ...]:
    # Options may be typed before `on`: they are judged as they will be.
    options, faults = parse_options({keys.CAPTURE: keys.CAPTURE_ON, **annotations})
    if options is not None and options.filter and check_filter is not None:
        said = check_filter(options.filter)
        if said is not None:
            faults = (*faults, f"{keys.FILTER}: {said}")
    return faults


def _only_stops(request: Request) -> bool:
    new, old = _look(request.object), _look(request.old_object)
    if new is None or old is None:
        return False
    if new.metadata.deletion_timestamp is not None:
        return True
    return _without_suspend(new.spec) == _without_suspend(old.spec)


def _without_suspend(spec: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (spec or {}).items() if key != "suspend"}


def _same_filter(settings: Settings, old: Settings | None) -> bool:
    return old is not None and old.filter == settings.filter


def _resolve(raw: Raw) -> tuple[Settings | None, tuple[str, ...]]:
    try:
        return resolve(parse_capture(raw)), ()
    except BadCapture as error:
        return None, error.faults


def _parse(raw: Raw, now: float) -> ResolvedCapture | None:
    try:
        capture = parse_capture(raw)
        if capture.metadata.creation_timestamp is None:
            created = datetime.fromtimestamp(now, UTC)
            metadata = msgspec.structs.replace(capture.metadata, creation_timestamp=created)
            capture = msgspec.structs.replace(capture, metadata=metadata)
        return ResolvedCapture(capture, resolve(capture))
    except BadCapture:
        return None


def _is_leaving(capture: PacketCapture) -> bool:
    return capture.metadata.deletion_timestamp is not None


def _nightcap_annotations(raw: Raw) -> dict[str, str]:
    found = _look(raw)
    return _of_nightcap((found.metadata.annotations if found is not None else None) or {})


def _of_nightcap(annotations: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if key.startswith(_PREFIX)}


def _look(raw: Raw) -> _Object | None:
    try:
        return _OBJECT.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
