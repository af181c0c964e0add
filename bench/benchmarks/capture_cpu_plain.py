"""CPU per packet without rotation, beside `tcpdump -w`, at three rates of 64-byte packets."""

from collections.abc import Iterator

from bench.effort import Effort
from bench.engines import SidecarWorker, Tcpdump
from bench.result import Result, paired, say
from bench.rounds import compare
from bench.traffic import Traffic

NAME = "capture-cpu-plain"
_FRAME = 64
_RATES_AND_COUNTS = ((50_000, 750_000), (200_000, 3_000_000), (800_000, 6_400_000))


def run(effort: Effort) -> Iterator[Result]:
    """One point for each rate."""
    for rate, count in _RATES_AND_COUNTS:
        say(f"{NAME}: {rate:,} packets/s")
        traffic = Traffic(_FRAME, rate, effort.of(count))
        measured = compare((SidecarWorker, Tcpdump), traffic, None, effort.of(5, 2))
        ours, peer = measured[SidecarWorker.name], measured[Tcpdump.name]
        yield paired(
            NAME,
            ours.cpu,
            peer.cpu,
            point=f"{rate // 1000} k packets/s",
            peer_name="tcpdump -w",
            most=1.0,
            goal="≤ 1.0 of the peer",
            unit="CPU s per million packets",
            detail={"ours": ours.facts(), "peer": peer.facts()},
        )
