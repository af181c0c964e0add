"""Retrieval's two programs as processes beside a private API server, and who speaks to them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from certs.bundle import Bundle, data_of
from certs.issue import new_leaf, new_root
from nightcap.contract import keys
from nightcap.contract.paths import collector_name
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH
from nightcap.kube.errors import NotFound
from tests.apiserver.private import BASE, REPOSITORY, PrivateApi, free_port

CALICO = REPOSITORY / "manifests" / "calico"
SYSTEM = "nightcap-system"
_PATIENCE_SECONDS = 30


class Retrieval:
    """Collector and files over one store, with the rights of the manifests and no others."""

    def __init__(self, api: PrivateApi, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir(parents=True)
        self.ports = {"collector": free_port(), "files": free_port()}
        self.root = new_root(1, time.time())
        self.trust = ssl.create_default_context(cadata=self.root.certificate)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._install()
        self._kubeconfig = self._own_kubeconfig()

    def launch(self, program: str) -> None:
        """Start a program, without waiting for it."""
        environ = os.environ | {
            "KUBECONFIG": str(self._kubeconfig),
            "NIGHTCAP_STORE": str(self.store),
            "NIGHTCAP_TLS_DIR": str(self.folder / "tls"),
            "NIGHTCAP_METRICS_PORT": "0",
            "NIGHTCAP_COLLECTOR_PORT": str(self.ports["collector"]),
            "NIGHTCAP_FILES_PORT": str(self.ports["files"]),
        }
        with self.log(program).open("ab") as log, self.output(program).open("ab") as out:
            self.processes[program] = subprocess.Popen(
                [sys.executable, "-m", "retrieval", program],
                cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL,
                stdout=out, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start(self, *programs: str) -> None:
        """Start programs and wait until they are ready."""
        for program in programs:
            self.launch(program)
        for program in programs:
            self.wait_ready(program)

    def wait_ready(self, program: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._is_ready(program):
            assert self.processes[program].poll() is None, self.log(program).read_text()[-4000:]
            assert time.monotonic() < deadline, self.log(program).read_text()[-4000:]
            time.sleep(0.05)

    def _is_ready(self, program: str) -> bool:
        connection = self.connect(program)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self, *programs: str) -> None:
        """kill -9 of all processes of these programs."""
        for program in programs or tuple(self.processes):
            process = self.processes.pop(program)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def connect(self, program: str) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self.ports[program], context=self.trust, timeout=20
        )

    def log(self, program: str) -> Path:
        return self.folder / f"{program}.log"

    def output(self, program: str) -> Path:
        """What it says on standard output: the audit records."""
        return self.folder / f"{program}.out"

    # What is in the API.

    def token(
        self,
        namespace: str,
        account: str,
        audience: str = "",
        bound_to: dict[str, Any] | None = None,
    ) -> str:
        """A token of a service account, for the API server's own audience unless said otherwise."""
        spec: dict[str, Any] = {"expirationSeconds": 3600}
        if audience:
            spec["audiences"] = [audience]
        if bound_to is not None:
            metadata = bound_to["metadata"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1", "kind": bound_to["kind"],
                "name": metadata["name"], "uid": metadata["uid"],
            }  # fmt: skip
        path = paths.service_account_token(namespace, account)
        answer = self.api.client.request("POST", path, body={"spec": spec})
        token: str = json.loads(answer)["status"]["token"]
        return token

    def pod(self, namespace: str, name: str, **labels: str) -> dict[str, Any]:
        """A pod that nobody runs; what a token can be bound to."""
        body = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        }
        return self.api.create_pod(namespace, body, dry_run=False) | {"kind": "Pod"}

    def sidecar_token(self, pod: dict[str, Any], audience: str = keys.TOKEN_AUDIENCE) -> str:
        """The token that is projected into a pod's sidecar."""
        return self.token(pod["metadata"]["namespace"], "default", audience, pod)

    def capture(
        self,
        namespace: str,
        name: str,
        spec: dict[str, Any],
        *,
        phase: str = "Capturing",
        group: str = keys.GROUP,
    ) -> str:
        """A capture with the phase that the controller would give it; its uid."""
        body = {
            "apiVersion": keys.API_VERSIONS[group], "kind": keys.KIND,
            "metadata": {"name": name}, "spec": spec,
        }  # fmt: skip
        client = self.api.client
        path = paths.packetcaptures(namespace, group)
        uid: str = json.loads(client.request("POST", path, body=body))["metadata"]["uid"]
        client.request(
            "PATCH", paths.packetcapture_status(namespace, name, group),
            body={"status": {"phase": phase}}, content_type=MERGE_PATCH,
        )  # fmt: skip
        return uid

    def _install(self) -> None:
        names = ("namespace.yaml", "crd.yaml", "rbac.yaml", "user-roles.yaml", "services.yaml")
        files = [BASE / name for name in names] + [CALICO / "crd.yaml", CALICO / "rbac.yaml"]
        leaf = new_leaf(self.root, ["localhost", collector_name(1)], time.time())
        bundle = Bundle(pairs={1: leaf}, current=1, ca_bundle=self.root.certificate)
        secret = {
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "nightcap-retrieval-tls", "namespace": SYSTEM},
            "data": data_of(bundle),
        }  # fmt: skip
        self.api.apply(*(d for file in files for d in yaml.safe_load_all(file.read_text())), secret)
        done = self.api.kubectl(
            "wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"
        )
        assert done.returncode == 0, done.stderr

    def _own_kubeconfig(self) -> Path:
        found = json.loads(self.api.kubeconfig.read_text())
        found["users"][0]["user"] = {"token": self.token(SYSTEM, "nightcap-retrieval")}
        file = self.folder / "kubeconfig"
        file.write_text(json.dumps(found))
        return file

    def serve_by_proxy(self) -> None:
        """Make the files program the endpoint of its Service, as no controller runs here.

        The API server passes on to addresses of pods alone, and to none of the loopback.
        """
        address, name = _own_address(), "nightcap-retrieval"
        self.api.namespace(SYSTEM)
        with contextlib.suppress(NotFound):  # that of another module's programs
            path = paths.pod(SYSTEM, name)
            self.api.client.request("DELETE", path, body={"gracePeriodSeconds": 0})
        security = {
            "runAsNonRoot": True, "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        pod = {
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "files", "image": "a", "securityContext": security}]},
        }
        uid = self.api.create_pod(SYSTEM, pod, dry_run=False)["metadata"]["uid"]
        self.api.client.request(
            "PATCH", paths.pod_status(SYSTEM, name), content_type=MERGE_PATCH,
            body={"status": {"podIP": address, "podIPs": [{"ip": address}]}},
        )  # fmt: skip
        target = {"kind": "Pod", "namespace": SYSTEM, "name": name, "uid": uid}
        endpoints = {
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": name, "namespace": SYSTEM},
            "subsets": [
                {
                    "addresses": [{"ip": address, "targetRef": target}],
                    "ports": [{"name": "https", "port": self.ports["files"]}],
                }
            ],
        }  # fmt: skip
        self.api.apply(endpoints)


def roles(namespace: str, rules: dict[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A service account, a role and the binding of both for each name, in one namespace."""
    found: list[dict[str, Any]] = []
    for name, granted in rules.items():
        metadata = {"name": name, "namespace": namespace}
        api = "rbac.authorization.k8s.io"
        found += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {
                "apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata,
                "rules": list(granted),
            },
            {
                "apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", **metadata}],
            },
        ]  # fmt: skip
    return found


def _own_address() -> str:
    """An address of this machine that is no loopback one, to which no API server passes on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])
