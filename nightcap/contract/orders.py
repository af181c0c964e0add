"""Orders: what one pod's sidecar has to do now, the value of one pod annotation.

One line of JSON, versioned, the same for every pod of a capture. Readers ignore
fields that they do not know. Needs the standard library alone, and little of it: sidecars
read it before their capture is open, and a NamedTuple is made in a sixth of the time that a
dataclass takes.
"""

import json
import re
from typing import Any, Final, NamedTuple

ORDERS_VERSION: Final = 1
MAX_ORDERS_BYTES: Final = 65536
MAX_CAPTURES: Final = 64
MAX_COLLECTORS: Final = 16
MAX_FILTER_BYTES: Final = 1024
MAX_SNAP: Final = 262144

CAPTURE_ID: Final = re.compile(r"[0-9a-f](?:[0-9a-f-]{0,61}[0-9a-f])?")
"""A capture's uid as it may be used for a folder and in a path."""
INTERFACE: Final = re.compile(r"[^/:%\s\x00-\x1f\x7f]{1,15}")
"""A network interface's name as the kernel allows it (dev_valid_name), `%` excepted."""
_COLLECTOR: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})")


class BadOrders(ValueError):
    """Orders that cannot be read; the message names the field, the value and the rule."""


class Rotation(NamedTuple):
    """When a segment is full and how many stay in the spool."""

    max_bytes: int = 10 * 2**20
    max_seconds: float = 3600
    max_files: int = 10


class Limit(NamedTuple):
    """When a capture of one pod is finished by what it has recorded; 0 means no limit."""

    bytes: int = 2**30
    packets: int = 0


class CaptureOrder(NamedTuple):
    """One capture as one sidecar has to perform it.

    Attributes:
        id: The capture's uid.
        filter: pcap-filter(7) expression, empty for every packet.
        snap: Bytes kept of each packet.
        interfaces: Names; empty for every interface but `lo`.
        until: End, seconds since the epoch by the node's clock.
    """

    id: str
    namespace: str
    name: str
    until: int
    filter: str = ""
    snap: int = MAX_SNAP
    interfaces: tuple[str, ...] = ()
    rotation: Rotation = Rotation()
    limit: Limit = Limit()


class Orders(NamedTuple):
    """All that one sidecar has to do, and where to ship it.

    Attributes:
        collectors: (host, port) in the order in which they are tried.
        refused: (capture id or "", reason) of entries that could not be read; the
            others stand.
    """

    collectors: tuple[tuple[str, int], ...] = ()
    captures: tuple[CaptureOrder, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def dump_orders(orders: Orders) -> str:
    """Write orders as the annotation's value: one line, "" when there is nothing to do."""
    if not orders.captures:
        return ""
    value = {
        "v": ORDERS_VERSION,
        "collectors": [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in orders.collectors
        ],
        "captures": [_dump_capture(capture) for capture in orders.captures],
    }
    return json.dumps(value, separators=(",", ":"))


def _dump_capture(capture: CaptureOrder) -> dict[str, Any]:
    return {
        "id": capture.id,
        "namespace": capture.namespace,
        "name": capture.name,
        "filter": capture.filter,
        "snap": capture.snap,
        "interfaces": list(capture.interfaces),
        "rotate": {
            "bytes": capture.rotation.max_bytes,
            "seconds": capture.rotation.max_seconds,
            "files": capture.rotation.max_files,
        },
        "limit": {"bytes": capture.limit.bytes, "packets": capture.limit.packets},
        "until": capture.until,
    }


def parse_orders(text: str) -> Orders:
    """Read the annotation's value.

    Args:
        text: JSON as `dump_orders` writes it; empty or blank means no orders.

    Raises:
        BadOrders: not JSON, not an object, a version this reader does not know, or too large.
            A single entry that is wrong is in `Orders.refused` instead.
    """
    if not text.strip():
        return Orders()
    if len(text) > MAX_ORDERS_BYTES:
        raise BadOrders(f"orders have {len(text)} bytes; at most {MAX_ORDERS_BYTES} are read")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadOrders(f"orders are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadOrders(f"orders are {type(value).__name__}; must be an object")
    version = value.get("v")
    if version != ORDERS_VERSION:
        raise BadOrders(f"orders have version {version!r}; this sidecar reads {ORDERS_VERSION}")
    entries = value.get("captures")
    if not isinstance(entries, list) or len(entries) > MAX_CAPTURES:
        raise BadOrders(f"captures: must be a list of at most {MAX_CAPTURES}")
    captures: dict[str, CaptureOrder] = {}
    refused: list[tuple[str, str]] = []
    for entry in entries:
        try:
            capture = _parse_capture(entry)
        except BadOrders as error:
            name = entry.get("id") if isinstance(entry, dict) else None
            known = isinstance(name, str) and CAPTURE_ID.fullmatch(name)
            refused.append((name if known else "", str(error)))  # type: ignore[arg-type]
        else:
            captures.setdefault(capture.id, capture)
    return Orders(_parse_collectors(value), tuple(captures.values()), tuple(refused))


def _parse_collectors(value: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    collectors = value.get("collectors", [])
    if not isinstance(collectors, list):
        raise BadOrders("collectors: must be a list of address:port")
    parsed = []
    for text in collectors[:MAX_COLLECTORS]:
        match = _COLLECTOR.fullmatch(text) if isinstance(text, str) else None
        # An unreadable address is passed over: the next may be good, and a capture
        # without any collector still keeps its ring.
        if match and 0 < int(match[3]) < 65536:
            parsed.append((match[1] or match[2], int(match[3])))
    return tuple(parsed)


def _parse_capture(entry: object) -> CaptureOrder:
    if not isinstance(entry, dict):
        raise BadOrders("captures: each must be an object")
    rotate = _object(entry, "rotate")
    limit = _object(entry, "limit")
    interfaces = entry.get("interfaces", [])
    if (
        not isinstance(interfaces, list)
        or len(interfaces) > 64
        or not all(isinstance(name, str) and is_interface(name) for name in interfaces)
    ):
        raise BadOrders(f"interfaces: {str(interfaces)[:80]!r} is no list of interface names")
    capture_id = _text(entry, "id", 63)
    if not CAPTURE_ID.fullmatch(capture_id):
        raise BadOrders(f"id: {capture_id!r} is no uid (lower-case hexadecimal and '-')")
    return CaptureOrder(
        id=capture_id,
        namespace=_text(entry, "namespace", 253, default=""),
        name=_text(entry, "name", 253, default=""),
        filter=_text(entry, "filter", MAX_FILTER_BYTES, default=""),
        snap=_whole(entry, "snap", 1, MAX_SNAP, default=MAX_SNAP),
        interfaces=tuple(dict.fromkeys(interfaces)),
        rotation=Rotation(
            max_bytes=_whole(rotate, "bytes", 4096, 2**40, default=Rotation().max_bytes),
            max_seconds=_number(rotate, "seconds", 0.1, 10**9, Rotation().max_seconds),
            max_files=_whole(rotate, "files", 1, 10**6, default=Rotation().max_files),
        ),
        limit=Limit(
            bytes=_whole(limit, "bytes", 0, 2**60, default=0),
            packets=_whole(limit, "packets", 0, 2**60, default=0),
        ),
        until=_whole(entry, "until", 0, 2**53),
    )


def is_interface(name: str) -> bool:
    """Whether the kernel could have an interface of this name."""
    return name not in (".", "..") and INTERFACE.fullmatch(name) is not None


def _object(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise BadOrders(f"{key}: must be an object")
    return value


def _text(entry: dict[str, Any], key: str, most: int, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > most:
        raise BadOrders(f"{key}: must be text of at most {most} bytes")
    return value


def _whole(
    entry: dict[str, Any], key: str, least: int, most: int, default: int | None = None
) -> int:
    value = entry.get(key, default)
    # bool is an int to Python, not to whoever wrote `true`.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadOrders(f"{key}: {str(value)[:40]} must be a whole number from {least} to {most}")
    return value


def _number(entry: dict[str, Any], key: str, least: float, most: float, default: float) -> float:
    value = entry.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise BadOrders(f"{key}: {str(value)[:40]} must be a number from {least} to {most}")
    return float(value)
