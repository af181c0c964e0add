"""Our controller as a process beside a private API server, to be measured, stopped and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from nightcap.contract import keys
from tests.apiserver.private import BASE, REPOSITORY, PrivateApi, free_port, own_kubeconfig

SYSTEM = "nightcap-system"
_PATIENCE_SECONDS = 60
_INJECTED = json.dumps({"release": "tests", "orders": 1, "profile": "privileged"})
_TICKS = os.sysconf("SC_CLK_TCK")


def install(api: PrivateApi) -> None:
    """What the controller needs to be there: its namespace, kinds, rights and Services."""
    api.namespace(SYSTEM)
    wanted = ("CustomResourceDefinition", "ServiceAccount", "Service")
    documents = [
        document
        for file in sorted(BASE.glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
        if document.get("kind") in wanted or "rbac" in document.get("apiVersion", "")
    ]
    crds = [document for document in documents if document["kind"] == wanted[0]]
    api.apply(*documents)
    for crd in crds:
        done = api.kubectl("wait", "--for=condition=Established", f"crd/{crd['metadata']['name']}")
        assert done.returncode == 0, done.stderr


def a_pod(name: str, app: str) -> dict[str, Any]:
    """A pod that was injected; nobody runs it."""
    sidecar = {"name": keys.SIDECAR_CONTAINER, "image": "registry.local/nightcap/sidecar:1"}
    return {
        "metadata": {
            "name": name,
            "labels": {"app": app},
            "annotations": {keys.INJECTED: _INJECTED},
        },
        "spec": {
            "initContainers": [{**sidecar, "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "registry.local/app:1"}],
        },
    }


class ControllerProcess:
    """One replica; `number` tells its log from others'."""

    def __init__(self, api: PrivateApi, number: int = 0) -> None:
        self.api = api
        self.number = number
        self.port = free_port()
        self.log = api.folder / f"controller-{number}.log"
        self.started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.started_at = time.monotonic()
        kubeconfig = own_kubeconfig(self.api, "nightcap-controller")
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "controller"], cwd=REPOSITORY,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env={
                    **os.environ,
                    "KUBECONFIG": str(kubeconfig),
                    "HOSTNAME": f"controller-{self.number}",
                    "NIGHTCAP_METRICS_PORT": str(self.port),
                    "NIGHTCAP_TOKEN_FILE": str(Path(os.devnull)),
                },
            )  # fmt: skip

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """A clean stop."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
            self._process = None

    def ask(self, path: str) -> str | None:
        """What it answers with success; None otherwise."""
        with (
            contextlib.suppress(OSError, urllib.error.HTTPError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer,
        ):
            return str(answer.read().decode())
        return None

    def wait_ready(self, timeout_seconds: float = _PATIENCE_SECONDS) -> float:
        """Wait for /readyz; seconds since the start."""
        deadline = self.started_at + timeout_seconds
        while self.ask("/readyz") is None:
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)
        return time.monotonic() - self.started_at

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = (self.ask("/metrics") or "").splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Its memory, in MB; `VmHWM` for the most it ever had."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{what}:"))
        return int(line.split()[1]) * 1024 / 1e6

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
