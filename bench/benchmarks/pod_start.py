"""What the sidecar adds to a pod's start, beside a native sidecar that only sleeps.

The sleeping one is a container of the sidecar's own image that runs the same dormant program
without any of our volumes and settings: image and process are alike, so the difference is all that
injection adds to a pod that has a native sidecar (admission, volumes, token).
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

from bench.cluster import client, namespace
from bench.effort import Effort
from bench.result import Result, quantile, say, spread
from demo.kubectl import wait_for
from nightcap.contract import paths as sidecar_paths
from nightcap.contract.keys import INJECT
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from tests.e2e.shop import Shop

NAME = "pod-start"
_GOAL_SECONDS = 0.1
_VARIANTS = ("without", "sleeping", "ours")


def run(effort: Effort) -> Iterator[Result]:
    """From the pod's creation to the application's first breath, in interleaved triples."""
    triples = effort.of(24, 3)
    starts: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    with namespace("bench-start") as shop:
        kube = client(shop.stage)
        _one(shop, kube, "warm-up", "ours")
        for number in range(triples):
            turn = number % 3
            for variant in (*_VARIANTS[turn:], *_VARIANTS[:turn]):
                starts[variant].append(_one(shop, kube, f"{variant}-{number}", variant))
            said = ", ".join(f"{name} {times[-1]:.2f} s" for name, times in starts.items())
            say(f"{NAME}: triple {number + 1} of {triples}: {said}")
    added = [
        ours - sleeping for ours, sleeping in zip(starts["ours"], starts["sleeping"], strict=True)
    ]
    without = [ours - bare for ours, bare in zip(starts["ours"], starts["without"], strict=True)]
    ours, sleeping = (statistics.median(starts[name]) for name in ("ours", "sleeping"))
    yield Result(
        name=NAME,
        ours=round(ours, 3),
        peer=round(sleeping, 3),
        peer_name="a native sidecar that only sleeps",
        ratio=round(ours / sleeping, 3),
        unit="s until the application runs",
        goal=f"≤ {_GOAL_SECONDS:g} s more",
        met=statistics.median(added) <= _GOAL_SECONDS,
        runs=triples,
        spread=spread(starts["ours"]),
        peer_spread=spread(starts["sleeping"]),
        detail={
            "without_any_sidecar": round(statistics.median(starts["without"]), 3),
            "more_than_sleeping": round(statistics.median(added), 3),
            "half_of_all_between": [round(quantile(added, share), 3) for share in (0.25, 0.75)],
            "more_than_without": round(statistics.median(without), 3),
        },
    )


def _one(shop: Shop, kube: KubeClient, name: str, variant: str) -> float:
    pod = _pod(shop, name, variant)
    before = time.time()
    kube.request("POST", paths.pods(shop.name), body=pod)
    shop.wait_ready(name)
    said = wait_for("the application's word", lambda: shop.run("logs", name, "-c", "app") or None)
    containers = shop.containers(name)
    expected = {"without": [], "sleeping": ["sleeper"], "ours": ["nightcap"]}[variant]
    if containers != expected:
        raise RuntimeError(f"{name} has {containers} before its application, not {expected}")
    kube.request("DELETE", paths.pod(shop.name, name), query={"gracePeriodSeconds": "0"})
    return float(said) - before


def _pod(shop: Shop, name: str, variant: str) -> dict[str, Any]:
    app = {
        "name": "app",
        "image": shop.stage.images.app,
        "command": ["sh", "-c", "date +%s.%N; exec sleep 600"],
    }
    sleeper = {
        "name": "sleeper",
        "image": shop.stage.images.sidecar,
        "command": [sidecar_paths.DORMANT_PROGRAM],
        "restartPolicy": "Always",
    }
    labels = {} if variant == "ours" else {INJECT: "disabled"}
    more = {"initContainers": [sleeper]} if variant == "sleeping" else {}
    return shop.pod(name, labels=labels, containers=[app], **more)
