"""CPU per packet while files rotate at 10 MB, beside `tcpdump -C` and `dumpcap -b filesize`."""

from collections.abc import Iterator

from bench.effort import Effort
from bench.engines import Dumpcap, Rotation, SidecarWorker, Tcpdump
from bench.result import Result, paired, say
from bench.rounds import compare
from bench.traffic import Traffic

NAME = "capture-cpu-rotating"
_ROTATION = Rotation(megabytes=10, files=10)
# Rates that every engine keeps up with or nearly so: who drops packets saves the work for them.
_POINTS = (
    ("64 B", Traffic(frame=64, rate=400_000, count=4_000_000)),
    ("1400 B", Traffic(frame=1400, rate=100_000, count=1_000_000)),
)
_PEERS = ((Tcpdump, "tcpdump -C 10 -W 10", 0.45), (Dumpcap, "dumpcap -b filesize", 0.10))


def run(effort: Effort) -> Iterator[Result]:
    """Both frame sizes, each beside both peers."""
    for point, full in _POINTS:
        traffic = Traffic(full.frame, full.rate, effort.of(full.count))
        say(f"{NAME}: {point} at {traffic.rate:,} packets/s")
        kinds = (SidecarWorker, Tcpdump, Dumpcap)
        measured = compare(kinds, traffic, _ROTATION, effort.of(5, 2))
        ours = measured[SidecarWorker.name]
        for kind, command, most in _PEERS:
            peer = measured[kind.name]
            yield paired(
                NAME,
                ours.cpu,
                peer.cpu,
                point=f"{point}, {command}",
                peer_name=command,
                most=most,
                goal=f"≤ {most} of the peer",
                unit="CPU s per million packets",
                detail={"ours": ours.facts(), "peer": peer.facts()},
            )
