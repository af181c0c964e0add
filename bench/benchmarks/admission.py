"""admission: what the webhook adds to a pod's creation, and its speed beside a Go webhook.

1. Pods are created on a real API server (private, on the loopback) in triples: in a namespace
   without webhook, in one with ours, in one with the peer; the order within a triple changes. Ours
   is the whole program with its log, watches and metrics.
2. The same AdmissionReview at 16 keep-alive TLS connections, a server on one processor and h2load
   on the other, servers in turn.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.admission import (
    PEER_NAME,
    Server,
    ask,
    realistic_pod,
    review_of,
    servers,
    with_children,
)
from bench.effort import Effort
from bench.result import Result, quantile, say, spread
from nightcap.kube import paths
from tests.apiserver.private import Installation, PrivateApi

NAME = "admission"
_CONNECTIONS = 16
_KINDS = ("none", "ours", "peer")


def run(effort: Effort) -> Iterator[Result]:
    """One result for each figure of the row."""
    with servers() as (api, ours, first, peer):
        yield from _latency(api, ours, peer, effort.of(2000, 150))
        yield from _throughput(ours, first, peer, effort.of(5, 2), effort.of(6, 2))


# 1. Added to a creation.


def _latency(api: PrivateApi, ours: Installation, peer: Server, triples: int) -> Iterator[Result]:
    took = _created(api, ours, peer, triples)
    added = [a - b for a, b in zip(took["ours"], took["none"], strict=True)]
    of_peer = [a - b for a, b in zip(took["peer"], took["none"], strict=True)]
    middle, base = statistics.median(added), quantile(took["none"], 0.99)
    yield Result(
        name=NAME,
        point="latency-median",
        ours=round(middle, 3),
        peer=round(statistics.median(of_peer), 3),
        peer_name=PEER_NAME,
        ratio=round(middle / statistics.median(of_peer), 3),
        unit="ms added to a creation",
        goal="≤ 3 ms",
        met=middle <= 3,
        runs=triples,
        detail={
            "interval": _median_interval(added),
            "interval_of_peer": _median_interval(of_peer),
            "without_ms": round(statistics.median(took["none"]), 2),
        },
    )
    tail, tail_of_peer = (quantile(took[kind], 0.99) - base for kind in ("ours", "peer"))
    yield Result(
        name=NAME,
        point="latency-p99",
        ours=round(tail, 3),
        peer=round(tail_of_peer, 3),
        peer_name=PEER_NAME,
        ratio=round(tail / tail_of_peer, 3),
        unit="ms between the 99th percentiles",
        goal="≤ 10 ms",
        met=tail <= 10,
        runs=triples,
        detail={
            "p99_of_differences": round(quantile(added, 0.99), 2),
            "p99_of_differences_of_peer": round(quantile(of_peer, 0.99), 2),
            "p99_without_ms": round(base, 2),
        },
    )


def _created(
    api: PrivateApi, ours: Installation, peer: Server, triples: int
) -> dict[str, list[float]]:
    """Milliseconds of each creation, by kind of namespace."""
    namespaces = {
        "none": api.namespace("bench-none"),
        "ours": api.namespace("bench-ours", **{"nightcap.dev/inject": "enabled"}),
        "peer": api.namespace("bench-peer", bench="peer"),
    }
    api.apply(_peer_configuration(peer, ours))
    body = json.dumps(realistic_pod()).encode()

    def create(kind: str) -> float:
        began_at = time.perf_counter()
        api.client.request("POST", paths.pods(namespaces[kind]), body=body)
        return (time.perf_counter() - began_at) * 1000

    _wait_injected(api, namespaces["peer"])
    for kind in _KINDS:
        for _ in range(50):
            create(kind)
    took: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    order = list(_KINDS)
    for number in range(triples):
        random.shuffle(order)
        for kind in order:
            took[kind].append(create(kind))
        if number % 500 == 499:
            say(f"{NAME}: {number + 1} triples of {triples}")
    return took


def _peer_configuration(peer: Server, ours: Installation) -> dict[str, Any]:
    entry = next(iter(ours.webhooks()))
    webhook = entry["webhooks"][0]
    webhook["name"] = "peer.example.com"
    webhook["clientConfig"]["url"] = f"https://127.0.0.1:{peer.port}{peer.path}"
    webhook["namespaceSelector"] = {"matchLabels": {"bench": "peer"}}
    entry["metadata"]["name"] = "peer"
    entry["webhooks"] = [webhook]
    return entry


def _wait_injected(api: PrivateApi, namespace: str) -> None:
    deadline = time.monotonic() + 30
    while "initContainers" not in api.create_pod(namespace, realistic_pod())["spec"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no pod of {namespace} is injected")
        time.sleep(0.1)


# 2. Requests of one processor.


def _throughput(
    ours: Installation, first: Server, peer: Server, rounds: int, seconds: int
) -> Iterator[Result]:
    review = review_of(realistic_pod(), "bench-ours")
    answers = [ask(server, ours.root.certificate, review) for server in (first, peer)]
    if answers[0]["spec"] != answers[1]["spec"]:
        raise SystemExit("ours and the peer do not add the same sidecar: nothing to compare")
    body = json.dumps(review, separators=(",", ":")).encode()
    say(f"{NAME}: an AdmissionReview of {len(body)} bytes, {_CONNECTIONS} connections")
    found: dict[str, list[Round]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name:
        file = Path(name) / "review.json"
        file.write_bytes(body)
        for server in (first, peer):
            _pin(server.pid, 0)
            _load(server, file, 1)
        for number in range(rounds):
            for server in (first, peer) if number % 2 else (peer, first):
                found[server.name].append(_load(server, file, seconds))
                say(f"{NAME}: round {number + 1} {server.name}: {found[server.name][-1]}")
    rates = {name: [r.per_core for r in its] for name, its in found.items()}
    tails = {name: [r.p99_ms for r in its] for name, its in found.items()}
    a_second = {name: round(statistics.median(r.per_second for r in found[name])) for name in found}
    yield _beside(
        "throughput", rates, "requests per CPU second", "≥ 2 x peer", least=2.0, detail=a_second
    )
    yield _beside("throughput-p99", tails, "ms", "≤ peer", most=1.0, detail={})


def _beside(
    point: str,
    runs: dict[str, list[float]],
    unit: str,
    goal: str,
    *,
    detail: dict[str, Any],
    least: float = 0.0,
    most: float = float("inf"),
) -> Result:
    """A result whose goal is a ratio of the rounds that were run in turn."""
    ratio = statistics.median(a / b for a, b in zip(runs["ours"], runs["peer"], strict=True))
    return Result(
        name=NAME,
        point=point,
        ours=round(statistics.median(runs["ours"]), 1),
        peer=round(statistics.median(runs["peer"]), 1),
        peer_name=PEER_NAME,
        ratio=round(ratio, 3),
        unit=unit,
        goal=goal,
        met=least <= ratio <= most,
        runs=len(runs["ours"]),
        spread=spread(runs["ours"]),
        peer_spread=spread(runs["peer"]),
        detail=detail,
    )


@dataclass(frozen=True, slots=True)
class Round:
    """One run of h2load against one server."""

    requests: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_core(self) -> float:
        return self.requests / self.cpu_seconds

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.per_core:.0f} per CPU second, {self.per_second:.0f} a second, "
            f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"
        )


def _load(server: Server, body: Path, seconds: int) -> Round:
    log = body.with_suffix(".log")
    log.unlink(missing_ok=True)
    cpu, began_at = server.cpu_seconds(), time.monotonic()
    subprocess.run(
        [
            "taskset", "-c", str(max(os.sched_getaffinity(0))), _h2load(), "--h1",
            "-c", str(_CONNECTIONS), "-D", str(seconds), "-d", str(body),
            "-H", "content-type: application/json", f"--log-file={log}", server.url,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    took = time.monotonic() - began_at
    used = server.cpu_seconds() - cpu
    rows = [row.split("\t") for row in log.read_text().splitlines()]
    bad = [row for row in rows if row[1] != "200"]
    if bad:
        raise SystemExit(f"{server.name}: answers of status {bad[0][1]}, not 200")
    times = sorted(int(row[2]) / 1000 for row in rows)
    return Round(len(rows), took, used, quantile(times, 0.5), quantile(times, 0.99))


def _h2load() -> str:
    found = shutil.which("h2load")
    if found is None:
        sys.exit("h2load: not on PATH; install nghttp2-client (apt-get install nghttp2-client)")
    return found


def _pin(pid: int, processor: int) -> None:
    """Keep a server's threads, all of them and those to come, on one processor."""
    for process in list(with_children(pid)):
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), {processor})


def _median_interval(values: Sequence[float]) -> list[float]:
    """A 95 % interval of the median, by ranks."""
    ordered, n = sorted(values), len(values)
    half = 0.98 * n**0.5
    return [
        round(ordered[max(0, int(n / 2 - half))], 3),
        round(ordered[min(n - 1, int(n / 2 + half))], 3),
    ]
