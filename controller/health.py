"""Health and metrics on a plain port: /healthz, /readyz, /metrics."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_READ_SECONDS: Final = 5


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Probes come over IPv6 alone where the cluster has nothing else.
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class HealthServer:
    """Answers probes and scrapes from threads of its own.

    Args:
        port: To listen on, on every address; 0 for any free one.
        registry: What /metrics shows.
        troubles: What keeps us from being ready, empty when nothing does.
        is_alive: Whether the process should go on at all.
    """

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        troubles: Callable[[], tuple[str, ...]],
        is_alive: Callable[[], bool],
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_SECONDS

            def do_GET(self) -> None:
                status, kind, body = _answer(self.path, registry, troubles, is_alive)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Probes every few seconds are no news."""

        self._server = _Server(("", port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="health", daemon=True
        )

    @property
    def port(self) -> int:
        return self._server.server_port

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _answer(
    path: str,
    registry: CollectorRegistry,
    troubles: Callable[[], tuple[str, ...]],
    is_alive: Callable[[], bool],
) -> tuple[int, str, bytes]:
    text = "text/plain; charset=utf-8"
    match path.partition("?")[0]:
        case "/healthz":
            return (200, text, b"ok\n") if is_alive() else (500, text, b"the loop has ended\n")
        case "/readyz":
            reasons = troubles()
            if reasons:
                return 503, text, ("\n".join(reasons) + "\n").encode()
            return 200, text, b"ok\n"
        case "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
        case _:
            return 404, text, b"/healthz, /readyz or /metrics\n"
