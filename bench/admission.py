"""What admission costs: added to a pod's creation, and on the webhook's own core.

    python -m bench.admission [--quick]

1. `admission-latency`: pods are created on a real API server (private, on the loopback) in
   triples: in a namespace without webhook, in one with ours, in one with the peer; the order
   within a triple turns. Ours is the whole program with its log, watches and metrics.
2. `admission-throughput`: the same AdmissionReview at 16 keep-alive TLS connections, a server on
   one processor and h2load on the other, servers in turn. Requests per CPU second of the server.

The peer is `bench/admission_go`: a Go webhook on controller-runtime's admission package that adds
the same sidecar. One JSON object a line on stdout, progress on stderr.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from ssl import create_default_context
from typing import Any

import jsonpatch

from bench import machine
from certs.issue import new_leaf
from nightcap.kube import paths
from tests.apiserver.private import Installation, PrivateApi, free_port
from tests.cluster import toolchain
from tests.cluster.cache import cached_part, digest_of_files, source_files

PEER = Path(__file__).resolve().parent / "admission_go"
PEER_NAME = "Go webhook on controller-runtime's admission package"
CONNECTIONS = 16
_BUILD = ("build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    triples: int
    rounds: int
    seconds: int


FULL = Effort(triples=2000, rounds=5, seconds=6)
QUICK = Effort(triples=150, rounds=2, seconds=2)


def say(text: str) -> None:
    """Progress for people."""
    print(f"admission: {text}", file=sys.stderr, flush=True)


# What is sent.


def realistic_pod() -> dict[str, Any]:
    """A pod as a Deployment makes it: two containers, 25 variables, probes, four volumes."""

    def container(name: str, variables: int) -> dict[str, Any]:
        probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5}
        amount = {"cpu": "100m", "memory": "128Mi"}
        return {
            "name": name,
            "image": f"registry.local/shop/{name}@sha256:{'a1b2c3d4' * 8}",
            "args": ["--listen=:8080", "--log-format=json", "--upstream=http://catalog:8080"],
            "env": [
                {
                    "name": f"SETTING_{number}",
                    "value": f"https://service-{number}.shop.svc:8443/api",
                }
                for number in range(variables)
            ],
            "ports": [{"containerPort": 8080, "name": f"http-{name}", "protocol": "TCP"}],
            "resources": {"requests": amount, "limits": {"memory": "256Mi"}},
            "livenessProbe": probe,
            "readinessProbe": probe,
            "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True},
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/shop", "readOnly": True},
                {"name": "cache", "mountPath": "/var/cache/shop"},
                {"name": "secrets", "mountPath": "/etc/secrets", "readOnly": True},
            ],
        }

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "storefront-7d9c5b8f6d-",
            "labels": {"app": "storefront", "pod-template-hash": "7d9c5b8f6d", "tier": "web"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        },
        "spec": {
            "containers": [container("storefront", 18), container("cache", 7)],
            "schedulingGates": [{"name": "example.com/never"}],
            "volumes": [
                {"name": "config", "configMap": {"name": "storefront"}},
                {"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "secrets", "secret": {"secretName": "storefront"}},
                {"name": "scratch", "emptyDir": {}},
            ],
        },
    }


def review_of(pod: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The AdmissionReview that asks about it."""
    user = {
        "username": "system:serviceaccount:kube-system:replicaset-controller",
        "groups": ["system:serviceaccounts", "system:authenticated"],
    }
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": user,
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    }


# The servers.


@dataclass(frozen=True, slots=True)
class Server:
    """A webhook that runs."""

    name: str
    port: int
    path: str
    pid: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{self.path}"

    def cpu_seconds(self) -> float:
        """CPU time of it and of all that it started, so far."""
        return sum(_cpu_seconds(pid) for pid in _with_children(self.pid))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_children(int(child))


def build_peer() -> Path:
    """The peer's program, from the cache if it was built before."""
    files = source_files(PEER, ["."])
    key = digest_of_files(PEER, files, *_BUILD)

    def build(folder: Path) -> None:
        go = toolchain.find_go(toolchain.needed_version([PEER / "go.mod"]))
        environ = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
        say("building the peer")
        subprocess.run(
            [str(go), *_BUILD, "-o", f"{folder}/peer", "."],
            cwd=PEER, env={**os.environ, **environ}, check=True,
        )  # fmt: skip

    return cached_part("bench-admission", key, build) / "peer"


@contextmanager
def servers() -> Iterator[tuple[PrivateApi, Installation, Server, Server]]:
    """A private API server, ours and the peer's webhook beside it."""
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name:
        folder = Path(name)
        api = PrivateApi(folder)
        try:
            ours = Installation(api)
            peer = _start_peer(api, ours, folder)
            first = Server("ours", ours.port, "/mutate/privileged", api.pid_of("webhook"))
            yield api, ours, first, peer
        finally:
            api.close()


def _start_peer(api: PrivateApi, ours: Installation, folder: Path) -> Server:
    leaf = new_leaf(ours.root, ["localhost", "127.0.0.1"], time.time())
    tls = folder / "peer-tls"
    tls.mkdir()
    (tls / "tls.crt").write_text(leaf.certificate)
    (tls / "tls.key").write_text(leaf.key)
    sidecar = folder / "sidecar.json"
    sidecar.write_text(json.dumps(_what_ours_adds(api)))
    port = free_port()
    program = build_peer()
    # As on one processor: with more, its garbage collector runs beside it and costs more.
    environ = {"GOMAXPROCS": "1"}
    api.run("peer", str(program), str(port), str(tls), str(sidecar), environ=environ)
    server = Server("peer", port, "/mutate", api.pid_of(str(program)))
    _wait_answering(server, ours)
    return server


def _what_ours_adds(api: PrivateApi) -> dict[str, Any]:
    """The sidecar as ours adds it, for the peer to add the same."""
    name = api.namespace("bench-sample", **{"nightcap.dev/inject": "enabled"})
    pod = api.create_pod(name, realistic_pod())
    volumes = pod["spec"]["volumes"]
    return {
        "container": pod["spec"]["initContainers"][0],
        "volumes": [v for v in volumes if v["name"].startswith("nightcap-")],
        "annotations": {
            key: value
            for key, value in pod["metadata"]["annotations"].items()
            if key.startswith("nightcap.dev/")
        },
    }


def _wait_answering(server: Server, ours: Installation) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            ask(server, ours.root.certificate, review_of(realistic_pod(), "bench-ours"))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def ask(server: Server, ca: str, review: dict[str, Any]) -> dict[str, Any]:
    """One request; the pod as the answer makes it."""
    connection = HTTPSConnection(
        "localhost", server.port, context=create_default_context(cadata=ca), timeout=10
    )
    try:
        connection.request(
            "POST", server.path, json.dumps(review), {"Content-Type": "application/json"}
        )
        response = json.loads(connection.getresponse().read())["response"]
    finally:
        connection.close()
    patch = json.loads(base64.b64decode(response["patch"]))
    patched: dict[str, Any] = jsonpatch.apply_patch(review["request"]["object"], patch)
    return patched


# 1. Latency.


def measure_latency(
    api: PrivateApi, ours: Installation, peer: Server, effort: Effort
) -> Iterator[dict[str, Any]]:
    """Creations without webhook, with ours and with the peer, in triples."""
    namespaces = {
        "none": api.namespace("bench-none"),
        "ours": api.namespace("bench-ours", **{"nightcap.dev/inject": "enabled"}),
        "peer": api.namespace("bench-peer", bench="peer"),
    }
    api.apply(_peer_configuration(peer, ours))
    pod = realistic_pod()
    body = json.dumps(pod).encode()

    def create(kind: str) -> float:
        began_at = time.perf_counter()
        api.client.request("POST", paths.pods(namespaces[kind]), body=body)
        return (time.perf_counter() - began_at) * 1000

    _wait_injected(api, namespaces["peer"])
    for kind in namespaces:
        for _ in range(50):
            create(kind)
    took: dict[str, list[float]] = {kind: [] for kind in namespaces}
    order = list(namespaces)
    for number in range(effort.triples):
        random.shuffle(order)
        for kind in order:
            took[kind].append(create(kind))
        if number % 500 == 499:
            say(f"{number + 1} triples of {effort.triples}")
    added = [with_us - without for with_us, without in zip(took["ours"], took["none"], strict=True)]
    of_peer = [with_it - none for with_it, none in zip(took["peer"], took["none"], strict=True)]
    samples = {"samples": effort.triples, "without_ms": round(statistics.median(took["none"]), 2)}
    yield line(
        "admission-latency-median", statistics.median(added), statistics.median(of_peer),
        "ms", "<= 3", effort.triples, interval=_median_interval(added), **samples,
    )  # fmt: skip
    base = quantile(took["none"], 0.99)
    yield line(
        "admission-latency-p99", quantile(took["ours"], 0.99) - base,
        quantile(took["peer"], 0.99) - base, "ms", "<= 10", effort.triples,
        p99_of_differences=round(quantile(added, 0.99), 2), **samples,
    )  # fmt: skip


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


# 2. Throughput.


def measure_throughput(
    ours: Installation, first: Server, peer: Server, effort: Effort
) -> Iterator[dict[str, Any]]:
    """The same request at 16 connections, servers in turn."""
    review = review_of(realistic_pod(), "bench-ours")
    answers = [ask(server, ours.root.certificate, review) for server in (first, peer)]
    if answers[0]["spec"] != answers[1]["spec"]:
        raise SystemExit("ours and the peer do not add the same sidecar: nothing to compare")
    body = json.dumps(review, separators=(",", ":")).encode()
    say(f"an AdmissionReview of {len(body)} bytes, {CONNECTIONS} connections")
    found: dict[str, list[Round]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name:
        file = Path(name) / "review.json"
        file.write_bytes(body)
        for server in (first, peer):
            _pin(server.pid, 0)
            _load(server, file, 1)
        for number in range(effort.rounds):
            for server in (first, peer) if number % 2 else (peer, first):
                found[server.name].append(_load(server, file, effort.seconds))
                say(f"round {number + 1} {server.name}: {found[server.name][-1]}")

    def middle(server: str, figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(r) for r in found[server])

    def both(figure: Callable[[Round], float]) -> tuple[float, float]:
        return middle("ours", figure), middle("peer", figure)

    yield line(
        "admission-throughput", *both(lambda r: r.per_core), "requests per CPU second",
        ">= 2 x peer", effort.rounds, per_second=[round(v) for v in both(lambda r: r.per_second)],
    )  # fmt: skip
    yield line(
        "admission-throughput-p99", *both(lambda r: r.p99_ms), "ms", "<= peer", effort.rounds
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
            "-c", str(CONNECTIONS), "-D", str(seconds), "-d", str(body),
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
    for process in list(_with_children(pid)):
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), {processor})


# Figures.


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _median_interval(values: Sequence[float]) -> list[float]:
    """A 95 % interval of the median, by ranks."""
    ordered, n = sorted(values), len(values)
    half = 0.98 * n**0.5
    return [
        round(ordered[max(0, int(n / 2 - half))], 3),
        round(ordered[min(n - 1, int(n / 2 + half))], 3),
    ]


def line(
    name: str, ours: float, peer: float, unit: str, goal: str, runs: int, **more: Any
) -> dict[str, Any]:
    """One result."""
    return {
        "name": name,
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "peer_name": PEER_NAME,
        "ratio": round(ours / peer, 3) if peer else None,
        "unit": unit,
        "goal": goal,
        "runs": runs,
        "machine": machine.describe(),
        **more,
    }


def measure(effort: Effort) -> Iterator[dict[str, Any]]:
    """All results."""
    with servers() as (api, ours, first, peer):
        yield from measure_latency(api, ours, peer, effort)
        yield from measure_throughput(ours, first, peer, effort)


def main() -> int:
    """The command line."""
    if sys.argv[1:] not in ([], ["--quick"]):
        print("usage: python -m bench.admission [--quick]", file=sys.stderr)
        return 2
    for result in measure(QUICK if sys.argv[1:] else FULL):
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
