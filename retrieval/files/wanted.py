"""What a person wants of the packets of a capture, read from a query. Pure.

| parameter | meaning |
| --- | --- |
| `pod` | a pod's name; several times or with commas for several pods |
| `from`, `to` | RFC 3339 or seconds since the epoch; from inclusive, to exclusive |
| `filter` | pcap-filter(7) |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nightcap.contract.filters import BadFilter, check_expression

_PARAMETERS: Final = ("pod", "from", "to", "filter")
_EPOCH: Final = re.compile(r"(?P<seconds>[0-9]{1,10})(?:\.(?P<fraction>[0-9]{1,9}))?")
_RFC3339: Final = re.compile(
    r"(?P<moment>[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class BadQuery(ValueError):
    """A query that is refused; the message names value and rule."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which packets.

    Attributes:
        pods: Names; empty for every pod.
        from_ns: Nanoseconds since the epoch, `to_ns` exclusive; None for no bound.
        filter: Of pcap-filter(7); whether it compiles is not known yet. Empty for every packet.
    """

    pods: frozenset[str] = frozenset()
    from_ns: int | None = None
    to_ns: int | None = None
    filter: str = ""

    def has_pod(self, pod: str) -> bool:
        return not self.pods or pod in self.pods

    def has_time(self, ns: int) -> bool:
        return (self.from_ns is None or ns >= self.from_ns) and (
            self.to_ns is None or ns < self.to_ns
        )


def parse_wanted(query: Mapping[str, Sequence[str]]) -> Wanted:
    """Read a query; a parameter that nobody knows is refused, as it may be a filter misspelt.

    Args:
        query: Values of each parameter.

    Raises:
        BadQuery: a value is wrong.
    """
    for name, values in query.items():
        if name not in _PARAMETERS:
            raise BadQuery(f"{name[:40]!r} is no parameter; known are {', '.join(_PARAMETERS)}")
        if name != "pod" and len(values) > 1:
            raise BadQuery(f"{name} is given {len(values)} times; give it once")
    pods = frozenset(
        pod for value in query.get("pod", ()) for pod in value.split(",") if pod.strip()
    )
    begin, end = _time(query, "from"), _time(query, "to")
    if begin is not None and end is not None and begin >= end:
        raise BadQuery("from is not before to")
    expression = next(iter(query.get("filter", ())), "").strip()
    try:
        check_expression(expression)
    except BadFilter as error:
        raise BadQuery(str(error)) from error
    return Wanted(pods, begin, end, expression)


def _time(query: Mapping[str, Sequence[str]], name: str) -> int | None:
    text = next(iter(query.get(name, ())), None)
    if text is None:
        return None
    match = _EPOCH.fullmatch(text)
    if match is not None:
        seconds = int(match["seconds"])
    else:
        # A plus sign in a query that was not quoted is a blank.
        match = _RFC3339.fullmatch(re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", text))
        seconds = _seconds(match) if match else -1
    if match is None or seconds < 0:
        raise BadQuery(
            f"{name} is {text[:40]!r}; must be RFC 3339 such as 2026-11-22T02:00:00Z, "
            "or seconds since the epoch"
        )
    return seconds * 10**9 + int((match["fraction"] or "").ljust(9, "0"))


def _seconds(match: re.Match[str]) -> int:
    zone = "+00:00" if match["zone"] in "Zz" else match["zone"]
    try:
        return int(datetime.fromisoformat(match["moment"].upper() + zone).timestamp())
    except (ValueError, OverflowError):
        return -1
