"""Numbered packets, looked for one by one: over many rotations none is missing, none twice."""

from collections.abc import Iterator

from bench.effort import Effort
from bench.engines import Engine, Rotation, SidecarWorker, Tcpdump
from bench.machine import memory_folder
from bench.network import joined
from bench.result import Result, say
from bench.rounds import one_run
from bench.traffic import Found, Traffic, find

NAME = "rotation-loss"
_ROTATION = Rotation(megabytes=10, files=100_000)
_TRAFFIC = Traffic(frame=64, rate=800_000, count=4_800_000)


def run(effort: Effort) -> Iterator[Result]:
    """0.8 million packets a second into a ring of 2 MB; tcpdump on the same for comparison."""
    traffic = Traffic(_TRAFFIC.frame, _TRAFFIC.rate, effort.of(_TRAFFIC.count))
    rounds = effort.of(5, 2)
    found: dict[str, list[Found]] = {SidecarWorker.name: [], Tcpdump.name: []}
    dropped: dict[str, list[int]] = {SidecarWorker.name: [], Tcpdump.name: []}
    files = 0

    def look(engine: Engine) -> None:
        nonlocal files
        written = engine.files()
        found[engine.name].append(find(written, traffic))
        files = len(written)

    with joined() as link, memory_folder() as folder:
        for number in range(rounds):
            for kind in (SidecarWorker, Tcpdump):
                outcome, sent = one_run(kind, link, folder / "run", _ROTATION, traffic, look)
                dropped[kind.name].append(outcome.dropped)
                say(
                    f"round {number + 1} of {rounds}: {kind.name:9} {files} files, "
                    f"{found[kind.name][-1]}, at {sent.rate:,.0f} packets/s"
                )
    ours, peer = found[SidecarWorker.name], found[Tcpdump.name]
    lost, twice = sum(each.lost for each in ours), sum(each.twice for each in ours)
    yield Result(
        name=NAME,
        ours=lost + twice,
        peer=sum(each.lost + each.twice for each in peer),
        peer_name="tcpdump -C 10",
        unit=f"packets lost or twice, of {rounds * traffic.count:,}",
        goal="0",
        met=lost + twice == 0,
        runs=rounds,
        detail={
            "lost": lost,
            "twice": twice,
            "reordered": sum(each.reordered for each in ours),
            "files_each_run": files,
            "kernel_drops": dropped[SidecarWorker.name],
            "peer_kernel_drops": dropped[Tcpdump.name],
            "peer_lost": [each.lost for each in peer],
        },
    )
