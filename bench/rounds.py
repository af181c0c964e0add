"""Engines in turn on the same traffic, so that what disturbs one disturbs all."""

import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.engines import Engine, Outcome, Rotation
from bench.machine import memory_folder
from bench.network import Link, joined
from bench.result import say
from bench.traffic import Sent, Traffic, send


@dataclass(slots=True)
class Measured:
    """One engine's rounds.

    Attributes:
        cpu: CPU seconds for a million captured packets.
        lost: Share of the packets that arrived and were not captured.
        dropped: What the engine says that the kernel dropped.
        rates: Packets a second that were sent.
    """

    cpu: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """What a reader of the figure wants to know beside it."""
        return {
            "cpu_s_per_million": [round(value, 4) for value in self.cpu],
            "kernel_drops": self.dropped,
            "lost_percent": [round(share * 100, 3) for share in self.lost],
            "packets_per_s": round(statistics.median(self.rates)),
        }


def compare(
    kinds: Sequence[type[Engine]],
    traffic: Traffic,
    rotation: Rotation | None,
    rounds: int,
    *,
    place: Callable[[], AbstractContextManager[Path]] = memory_folder,
) -> dict[str, Measured]:
    """Let each engine capture the same traffic, `rounds` times, in changing order.

    Args:
        place: Makes the folder that all write to.
    """
    measured = {kind.name: Measured() for kind in kinds}
    with joined() as link, place() as folder:
        for number in range(rounds):
            turn = number % len(kinds)
            for kind in (*kinds[turn:], *kinds[:turn]):
                outcome, sent = one_run(kind, link, folder / "run", rotation, traffic)
                its = measured[kind.name]
                its.cpu.append(outcome.cpu_seconds / outcome.captured * 1e6)
                its.lost.append(1 - outcome.captured / sent.arrived)
                its.dropped.append(outcome.dropped)
                its.rates.append(sent.rate)
                say(
                    f"round {number + 1} of {rounds}: {kind.name:9} {its.cpu[-1]:.3f} s/million, "
                    f"{its.lost[-1]:.2%} lost, at {sent.rate:,.0f} packets/s"
                )
    return measured


def one_run(
    kind: type[Engine],
    link: Link,
    folder: Path,
    rotation: Rotation | None,
    traffic: Traffic,
    look: Callable[[Engine], None] = lambda _engine: None,
) -> tuple[Outcome, Sent]:
    """Start an engine, send, stop it, let `look` see its files; nothing is left."""
    engine = kind(link, folder, rotation)
    try:
        engine.start()
        sent = send(link, traffic)
        outcome = engine.stop()
        look(engine)
    finally:
        engine.kill()
        shutil.rmtree(folder)
    return outcome, sent
