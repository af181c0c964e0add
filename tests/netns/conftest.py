import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.collector import Collector, Server
from tests.netns.net import Link, joined
from tests.netns.pods import Pod


@pytest.fixture
def link() -> Iterator[Link]:
    with joined() as link:
        yield link


def _built(name: str, factory: pytest.TempPathFactory) -> Path:
    """One of the sidecar's C programs, built as for the image."""
    binary = factory.mktemp(name) / name
    source = Path(__file__).parents[2] / "sidecar" / f"{name}.c"
    subprocess.run(["gcc", "-Os", "-static", "-s", "-o", binary, source], check=True)
    return binary


@pytest.fixture(scope="session")
def dormant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What sleeps and starts the worker."""
    return _built("dormant", tmp_path_factory)


@pytest.fixture(scope="session")
def errand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What people run by exec."""
    return _built("errand", tmp_path_factory)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def server(link: Link, collector: Collector, tmp_path: Path) -> Iterator[Server]:
    """The collector, reachable from the pod at the peer's address."""
    listening = link.peer.socket(kind=socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((link.peer.address, 20443))
    server = collector.serve(listening, tmp_path / "tls")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def pod(link: Link, tmp_path: Path) -> Iterator[Pod]:
    """A pod without any collector."""
    pod = Pod(link, tmp_path)
    yield pod
    pod.close()


@pytest.fixture
def shipping_pod(link: Link, server: Server, tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(link, tmp_path, collectors=((link.peer.address, 20443),))
    yield pod
    pod.close()
