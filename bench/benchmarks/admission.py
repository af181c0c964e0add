"""admission: what the webhook adds to a pod's creation, and its speed beside a Go webhook."""

from collections.abc import Iterator
from typing import Any

from bench import admission
from bench.effort import Effort
from bench.result import Result

_MOST = {
    "admission-latency-median": lambda ours, peer: ours <= 3,
    "admission-latency-p99": lambda ours, peer: ours <= 10,
    "admission-throughput": lambda ours, peer: ours >= 2 * peer,
    "admission-throughput-p99": lambda ours, peer: ours <= peer,
}


def run(effort: Effort) -> Iterator[Result]:
    """One result for each figure of the row."""
    for point in admission.measure(admission.FULL if effort.is_full else admission.QUICK):
        yield _result(point)


def _result(point: dict[str, Any]) -> Result:
    name, ours, peer = point["name"], point["ours"], point["peer"]
    known = ("ours", "peer", "peer_name", "ratio", "unit", "goal", "runs")
    detail = {key: value for key, value in point.items() if key not in (*known, "name", "machine")}
    return Result(
        name="admission",
        point=name.removeprefix("admission-"),
        met=_MOST[name](ours, peer),
        detail=detail,
        **{key: point[key] for key in known},
    )
