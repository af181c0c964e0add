import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.certs.running import Served
from tests.unit.kube.small_api import SmallApi


@pytest.fixture
def api() -> Iterator[SmallApi]:
    server = SmallApi()
    yield server
    server.close()


@pytest.fixture
def start(api: SmallApi, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """A function that starts a served program; what it is given is its environment."""
    processes: list[subprocess.Popen[str]] = []

    def begin(drain_seconds: float = 0, **environ: str) -> Served:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        log = tmp_path / "log"
        arguments = [api.url, str(port), str(tmp_path / "tls"), str(drain_seconds)]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.certs.served", *arguments],
                env=os.environ | environ,
                stderr=stderr,
                text=True,
            )
        processes.append(process)
        return Served(process, port, log)

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(10)
