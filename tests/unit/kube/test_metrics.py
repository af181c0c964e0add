import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from nightcap.kube.metrics import start_metrics


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_metrics_are_served_and_end() -> None:
    registry = CollectorRegistry()
    Counter("pods_injected", "Pods injected", registry=registry).inc(3)
    port = free_port()
    stop = start_metrics(port, registry)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"pods_injected_total 3.0" in answer.read()
    stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1)


def test_port_zero_is_no_server() -> None:
    start_metrics(0)()
