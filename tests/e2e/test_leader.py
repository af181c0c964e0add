"""At most one leads: replicas are killed, paused and stopped, against the real API server."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.kubectl import wait_for
from tests.e2e.shop import Shop

ROOT = Path(__file__).resolve().parents[2]


class Replicas:
    """Processes that take part in one election."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop, self.folder = shop, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._number = 0

    def add(self) -> None:
        self._number += 1
        identity = f"replica-{self._number}"
        self.running[identity] = subprocess.Popen(
            [
                sys.executable, str(Path(__file__).parent / "elector_process.py"),
                str(self.shop.kubectl.kubeconfig), self.shop.name, "test", identity,
                str(self.folder / identity),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def moments(self) -> list[tuple[float, float, str]]:
        """All moments of leading, in their order."""
        lines = [
            line.split() for file in self.folder.iterdir() for line in file.read_text().splitlines()
        ]
        return sorted((float(a), float(b), who) for a, b, who in (x for x in lines if len(x) == 3))

    def leader(self) -> str | None:
        """Who leads now, of those that run."""
        recent = [who for _, at, who in self.moments() if at > time.monotonic() - 0.3]
        return recent[-1] if recent and recent[-1] in self.running else None

    def end(self, identity: str, number: signal.Signals) -> None:
        process = self.running.pop(identity)
        process.send_signal(number)
        process.wait(timeout=20)


@pytest.fixture
def replicas(shop: Shop, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(shop, tmp_path)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()


def test_at_most_one_leads_through_kills_pauses_and_stops(replicas: Replicas) -> None:
    for _ in range(3):
        replicas.add()
    for how in ("kill", "pause", "stop", "pause", "kill", "stop"):
        leader = wait_for("a leader", replicas.leader, 20)
        if how == "pause":
            # Longer than the lease: another leads when it wakes.
            process = replicas.running[leader]
            process.send_signal(signal.SIGSTOP)
            wait_for("another leader", lambda old=leader: _another(replicas, old), 20)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.5)
        else:
            replicas.end(leader, signal.SIGKILL if how == "kill" else signal.SIGTERM)
            replicas.add()
    moments = replicas.moments()
    hands = [
        (first, second) for first, second in itertools.pairwise(moments) if first[2] != second[2]
    ]
    assert len(hands) >= 6
    # What one saw before another began must have ended before the other began.
    overlapping = [(first, second) for first, second in hands if first[1] > second[0]]
    assert overlapping == []


def _another(replicas: Replicas, old: str) -> str | None:
    leader = replicas.leader()
    return leader if leader is not None and leader != old else None


def test_a_lease_that_is_given_back_is_taken_at_once(replicas: Replicas) -> None:
    replicas.add()
    first = wait_for("a leader", replicas.leader, 20)
    replicas.add()
    time.sleep(2)
    replicas.end(first, signal.SIGTERM)
    ended_at = max(at for _, at, who in replicas.moments() if who == first)
    second = wait_for("the next leader", replicas.leader, 20)
    began_at = min(at for at, _, who in replicas.moments() if who == second)
    # Not the lease's three seconds: the watch tells.
    assert began_at - ended_at < 2.0
