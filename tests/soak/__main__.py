"""Kill everything at random while pods capture numbered packets, then look for each of them.

python -m tests.soak [--kills 1000] [--pods 20] [--pause 0.4] [--seed N]

The programs are the real ones: dormant, worker, collector, files, etcd and kube-apiserver, in
a network namespace of their own. Progress on stderr; the result is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from nightcap.contract.uploads import COLLECTOR_PORT
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import Retrieval, roles
from tests.cluster import build
from tests.cluster.progress import to_stderr
from tests.soak.network import Way, star
from tests.soak.pods import CAPTURE, NAMESPACE, Background, SoakPod
from tests.soak.verdict import Verdict, judge, open_in_tshark

_SEPARATE = "NIGHTCAP_SOAK_SEPARATE"
_SHIPPED_SECONDS = 120.0
_SOURCE = Path(__file__).parents[2] / "sidecar" / "dormant.c"


def say(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


class Soak:
    """Everything that runs, and the ways to kill it."""

    def __init__(self, folder: Path, api: PrivateApi, pods: list[SoakPod], seed: int) -> None:
        self.folder = folder
        self.api = api
        self.pods = pods
        self.source = random.Random(seed)  # noqa: S311 - chooses whom to kill
        self.retrieval = Retrieval(api, folder / "retrieval")
        self.way = Way(COLLECTOR_PORT, self.retrieval.ports["collector"])
        self.ca = self.retrieval.root.certificate
        self.kills: Counter[str] = Counter()
        # How often each; an API server takes seconds to come back.
        self._ways_to_die: dict[str, tuple[int, Callable[[], None]]] = {
            "sidecar worker": (6, lambda: self._pod().kill_worker()),
            "sidecar container": (6, lambda: self._pod().kill_container(self.ca)),
            "collector": (5, lambda: self._restart("collector")),
            "connections": (5, lambda: self.way.cut(self.source)),
            "files": (1, lambda: self._restart("files")),
            "API server": (1, lambda: self.api.restart("kube-apiserver")),
        }

    def open(self, dormant: Path) -> str:
        """Start everything; the capture's uid."""
        self.api.namespace(NAMESPACE)
        self.api.apply(
            *roles(
                NAMESPACE,
                {"reader": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}]},
            )
        )
        capture = self.retrieval.capture(NAMESPACE, CAPTURE, {"duration": "24h"})
        for pod in self.pods:
            made = self.retrieval.pod(NAMESPACE, pod.name)
            pod.uid, pod.dormant = made["metadata"]["uid"], dormant
            pod.prepare(self.retrieval.sidecar_token(made))
            pod.order(capture, int(time.time()) + 86400)
        self.retrieval.start("collector", "files")
        self.way.start()
        for pod in self.pods:
            pod.start(self.ca)
        _wait(lambda: all(pod.is_open for pod in self.pods), 60, "captures open")
        return capture

    def kill_one(self) -> None:
        names = list(self._ways_to_die)
        weights = [self._ways_to_die[name][0] for name in names]
        [name] = self.source.choices(names, weights)
        self._ways_to_die[name][1]()
        self.kills[name] += 1

    def _pod(self) -> SoakPod:
        return self.source.choice(self.pods)

    def _restart(self, program: str) -> None:
        self.retrieval.kill(program)
        self.retrieval.launch(program)

    def settle(self, capture: str) -> None:
        """End the capture and wait until each pod says that all is shipped."""
        for program in ("collector", "files"):
            self.retrieval.wait_ready(program)
        until = int(time.time())
        for pod in self.pods:
            pod.order(capture, until)
        waiting = self.pods
        deadline = time.monotonic() + _SHIPPED_SECONDS
        while waiting and time.monotonic() < deadline:
            time.sleep(0.2)
            waiting = [pod for pod in waiting if not pod.is_shipped(capture)]

    def download(self) -> Path:
        """All files, as a person fetches them."""
        token = self.retrieval.token(NAMESPACE, "reader")
        path = f"/v1/namespaces/{NAMESPACE}/packetcaptures/{CAPTURE}/files.zip"
        connection = self.retrieval.connect("files")
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, (answer.status, answer.read())
        file = self.folder / "files.zip"
        with file.open("wb") as stream:
            while piece := answer.read(2**20):
                stream.write(piece)
        connection.close()
        return file

    def close(self) -> None:
        for pod in self.pods:
            if pod.process is not None:
                pod.end()
        self.way.stop()
        self.retrieval.kill()


def run(options: argparse.Namespace, folder: Path) -> Verdict:
    """One soak from beginning to end; prints its result."""
    dormant = folder / "dormant"
    subprocess.run(["gcc", "-Os", "-static", "-s", "-o", dormant, _SOURCE], check=True)
    with star(options.pods) as links:
        pods = [
            SoakPod(f"pod-{number}", "", link, folder / f"pod-{number}", dormant)
            for number, link in enumerate(links)
        ]
        (folder / "api").mkdir()
        api = PrivateApi(folder / "api")
        try:
            soak = Soak(folder, api, pods, options.seed)
            try:
                return _run(options, soak, dormant)
            finally:
                soak.close()
        finally:
            api.close()


def _run(options: argparse.Namespace, soak: Soak, dormant: Path) -> Verdict:
    capture = soak.open(dormant)
    background = Background(soak.pods, capture, options.rate)
    background.start()
    started = time.monotonic()
    try:
        for number in range(options.kills):
            time.sleep(soak.source.uniform(0, 2 * options.pause))
            soak.kill_one()
            if number % 25 == 24:
                seconds = time.monotonic() - started
                say(f"{number + 1} of {options.kills} kills after {seconds:.0f} s")
        killing_seconds = time.monotonic() - started
        _wait(lambda: all(pod.is_open for pod in soak.pods), 60, "captures open again")
        background.silence()
        soak.settle(capture)
    finally:
        background.stop()
    say("all is quiet; looking for every packet")
    verdict = judge(soak.pods, capture, soak.retrieval.store, soak.download())
    say(f"{verdict.segments} segments, faults: {verdict.faults}; opening them in tshark")
    open_in_tshark(soak.retrieval.store, capture, options.tshark, verdict)
    print(
        json.dumps(
            {
                "pods": len(soak.pods),
                "kills": dict(soak.kills) | {"all": soak.kills.total()},
                "killing_seconds": round(killing_seconds),
                "settled_seconds": round(time.monotonic() - started - killing_seconds),
                "seed": options.seed,
                **asdict(verdict),
            }
        ),
        flush=True,
    )
    return verdict


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.4, help="mean seconds between two kills")
    parser.add_argument("--rate", type=int, default=100, help="packets a second to each pod")
    parser.add_argument("--tshark", type=int, default=0, help="files for tshark; 0 means all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="leave everything in this folder")
    options = parser.parse_args()
    if not os.environ.get(_SEPARATE):
        build.build_for_cluster(to_stderr)  # may need the network, which is gone after this
        command = ["unshare", "--net", sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, _SEPARATE: "1"}, check=False).returncode
    if options.keep:
        options.keep.mkdir(parents=True)
        return 1 if run(options, options.keep).faults else 0
    with tempfile.TemporaryDirectory(prefix="nightcap-soak-") as name:
        return 1 if run(options, Path(name)).faults else 0


if __name__ == "__main__":
    sys.exit(main())
