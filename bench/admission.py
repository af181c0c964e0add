"""What the benchmark `admission` sends, and the servers it sends it to.

The peer is `bench/admission_go`: a Go webhook on controller-runtime's admission package that adds
the same sidecar.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from ssl import create_default_context
from typing import Any

import jsonpatch

from bench.result import say
from certs.issue import new_leaf
from tests.apiserver.private import Installation, PrivateApi, free_port
from tests.cluster import toolchain
from tests.cluster.cache import cached_part, digest_of_files, source_files

PEER = Path(__file__).resolve().parent / "admission_go"
PEER_NAME = "Go webhook on controller-runtime's admission package"
_BUILD = ("build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w")


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
        return sum(_cpu_seconds(pid) for pid in with_children(self.pid))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def with_children(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from with_children(int(child))


def build_peer() -> Path:
    """The peer's program, from the cache if it was built before."""
    files = source_files(PEER, ["."])
    key = digest_of_files(PEER, files, *_BUILD)

    def build(folder: Path) -> None:
        go = toolchain.find_go(toolchain.needed_version([PEER / "go.mod"]))
        environ = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
        say("admission: building the peer")
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
    log = api.run("peer", str(program), str(port), str(tls), str(sidecar), environ=environ)
    server = Server("peer", port, "/mutate", api.pid_of(str(program)))
    _wait_answering(server, ours, log)
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


def _wait_answering(server: Server, ours: Installation, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            ask(server, ours.root.certificate, review_of(realistic_pod(), "bench-ours"))
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the peer does not answer: {log.read_text()[-800:]}") from error
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
