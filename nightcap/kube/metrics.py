"""Prometheus metrics on a plain port of their own, away from the port that serves people."""

import socket
import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server


def start_metrics(port: int, registry: CollectorRegistry = REGISTRY) -> Callable[[], None]:
    """Serve `/metrics` from a thread of this process.

    Args:
        port: To listen on, on every address; 0 turns metrics off.
        registry: What to show.

    Returns:
        A function that ends the server.
    """
    if not port:
        return lambda: None
    address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - scraped from outside
    started: tuple[WSGIServer, threading.Thread] = start_http_server(
        port, addr=address, registry=registry
    )
    server, thread = started

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop
