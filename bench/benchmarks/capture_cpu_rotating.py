"""CPU per packet while files rotate at 10 MB, beside `tcpdump -C` and `dumpcap -b filesize`."""

from collections.abc import Iterator

from bench.effort import Effort
from bench.engines import Dumpcap, Rotation, SidecarWorker, Tcpdump
from bench.machine import disk_folder, memory_folder
from bench.result import Result, paired, say
from bench.rounds import compare
from bench.traffic import Traffic

NAME = "capture-cpu-rotating"
_ROTATION = Rotation(megabytes=10, files=10)
# Rates that every engine keeps up with or nearly so: who drops packets saves the work for them.
_SMALL = Traffic(frame=64, rate=400_000, count=4_000_000)
_LARGE = Traffic(frame=1400, rate=100_000, count=1_000_000)
# A pod's spool is on a disk; without one there is less noise.
_POINTS = (
    ("64 B", _SMALL, memory_folder),
    ("1400 B", _LARGE, memory_folder),
    ("64 B on a disk", _SMALL, disk_folder),
    ("1400 B on a disk", _LARGE, disk_folder),
)
_PEERS = ((Tcpdump, "tcpdump -C 10 -W 10", 0.45), (Dumpcap, "dumpcap -b filesize", 0.10))


def run(effort: Effort) -> Iterator[Result]:
    """Both frame sizes, without and with a disk, each beside both peers."""
    for point, full, place in _POINTS:
        traffic = Traffic(full.frame, full.rate, effort.of(full.count))
        say(f"{NAME}: {point} at {traffic.rate:,} packets/s")
        kinds = (SidecarWorker, Tcpdump, Dumpcap)
        measured = compare(kinds, traffic, _ROTATION, effort.of(5, 2), place=place)
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
