"""The two programs as they run in their containers: real processes, real TLS, a fake API."""

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from certs.bundle import Bundle, data_of
from certs.issue import new_leaf, new_root
from nightcap.contract.paths import collector_name
from tests.unit.retrieval.fake_api import FakeApi

ROOT = Path(__file__).resolve().parents[3]


class Installation:
    """Starts programs over one store, and speaks to them."""

    def __init__(
        self, api: FakeApi, folder: Path, url: str = "", environ: dict[str, str] | None = None
    ) -> None:
        """Over a folder, or over the object store at `url`, which `environ` tells of."""
        self.api = api
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        self._environ = {"NIGHTCAP_STORE": url or str(self.store), **(environ or {})}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        now = time.time()
        root = new_root(1, now)
        leaf = new_leaf(root, ["localhost", collector_name(1)], now)
        self.ca = root.certificate
        bundle = Bundle(pairs={1: leaf}, current=1, ca_bundle=root.certificate)
        self.trust = ssl.create_default_context(cadata=root.certificate)
        api.secrets = [
            {
                "metadata": {"name": "nightcap-retrieval-tls", "namespace": "nightcap-system"},
                "data": data_of(bundle),
            }
        ]
        self._kubeconfig = folder / "kubeconfig"
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        cluster = {"name": "x", "cluster": {"server": api.url}}
        user = {"name": "x", "user": {}}
        self._kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "x",
                    "clusters": [cluster],
                    "contexts": [context],
                    "users": [user],
                }
            )
        )

    def start(self, program: str) -> int:
        """Start a program and wait until it says that it is ready; its port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self._ports[program] = port
        environ = os.environ | {
            "KUBECONFIG": str(self._kubeconfig),
            "NIGHTCAP_TLS_DIR": str(self.folder / f"tls-{port}"),
            "NIGHTCAP_METRICS_PORT": "0",
            "NIGHTCAP_COLLECTOR_PORT": str(port),
            "NIGHTCAP_FILES_PORT": str(port),
            **self._environ,
        }
        with (
            (self.folder / f"{program}.log").open("ab") as log,
            (self.folder / f"{program}.out").open("ab") as out,
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "retrieval", program],
                cwd=ROOT,
                env=environ,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        self.processes[port] = process
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, (self.folder / f"{program}.log").read_text()
            assert time.monotonic() < deadline, (self.folder / f"{program}.log").read_text()
            connection = self.connect(port)
            try:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return port
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()

    def port_of(self, program: str) -> int:
        """Where a program that was started last listens."""
        return self._ports[program]

    def connect(self, port: int) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", port, context=self.trust, timeout=20)

    def kill(self) -> None:
        """kill -9 of all processes of all programs."""
        for port in tuple(self.processes):
            self.kill_one(port)

    def kill_one(self, port: int) -> None:
        """kill -9 of all processes of the program that listens there."""
        process = self.processes.pop(port)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()

    def audit(self) -> str:
        return (self.folder / "files.out").read_text()


def wait_for(what: Callable[[], bool]) -> None:
    """Until it is so; what is waited for takes moments, and more on a busy machine."""
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
