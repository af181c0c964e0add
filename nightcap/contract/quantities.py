"""Durations and sizes as people write them in Kubernetes objects."""

import re

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)

_SIZE_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(|k|M|G|T|Ki|Mi|Gi|Ti)", re.ASCII)

MAX_SECONDS = 366 * 86400
MAX_BYTES = 2**50


class BadQuantity(ValueError):
    """A duration or size that cannot be read; the message quotes it and names the rule."""


def parse_duration(text: str) -> float:
    """Read a duration such as `90s`, `1h30m` or `500ms`.

    Returns:
        Seconds, above 0 and at most 366 days.

    Raises:
        BadQuantity: not a sum of numbers with the units ms, s, m, h, d, or out of range.
    """
    if len(text) > 40 or not _DURATION.fullmatch(text):
        raise BadQuantity(
            f"duration {text[:40]!r}: write a positive number with a unit (ms, s, m, h, d), "
            "such as 90s or 1h30m"
        )
    seconds = sum(
        float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text)
    )
    if not 0 < seconds <= MAX_SECONDS:
        raise BadQuantity(f"duration {text[:40]!r}: must be more than 0 and at most 366d")
    return seconds


def parse_size(value: str | int) -> int:
    """Read a size such as `10Mi`, `1G` or `65536`.

    Returns:
        Bytes, 0 to 2**50.

    Raises:
        BadQuantity: not a number with one of the units k, M, G, T, Ki, Mi, Gi, Ti, or out of range.
    """
    text = str(value)
    match = _SIZE.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        raise BadQuantity(
            f"size {text[:40]!r}: write bytes as a positive number with an optional unit "
            "(k, M, G, T, Ki, Mi, Gi, Ti), such as 10Mi"
        )
    size = int(float(match[1]) * _SIZE_UNITS[match[2]])
    if size > MAX_BYTES:
        raise BadQuantity(f"size {text[:40]!r}: must be at most 1024Ti")
    return size
