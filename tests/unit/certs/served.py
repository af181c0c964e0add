"""A program as webhook and retrieval are, with API, PORT, DIR and DRAIN as arguments.

SERVED_GRACEFUL in the environment is how many seconds requests have at its end, SERVED_PATIENCE
how many it waits for slow clients, SERVED_HURRY how many for bodies while others wait, and
SERVED_CONNECTIONS how many connections it has.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from kubernetes.client import Configuration

from certs import arriving, bodies, contexts
from certs.bodies import BODY
from certs.plain import PlainAnswer
from certs.serving import ServingCertificates, serve
from nightcap.kube.client import KubeClient
from nightcap.kube.logs import setup_logging
from tests.unit.certs.tls import NAMESPACE, SECRET


def answer_plain(path: str, body: bytes) -> PlainAnswer | None:
    """What is known at once of one path alone."""
    return PlainAnswer(b'{"plain": true}', list) if path == "/plain" else None


def main() -> None:
    url, port, tls_dir, drain_seconds = sys.argv[1:]
    if "SERVED_PATIENCE" in os.environ:
        seconds = float(os.environ["SERVED_PATIENCE"])
        contexts.IO_SECONDS = bodies.BODY_SECONDS = seconds
        arriving.HANDSHAKE_SECONDS = arriving.SILENT_SECONDS = arriving.HEAD_SECONDS = seconds
    bodies.HURRIED_SECONDS = float(os.environ.get("SERVED_HURRY", bodies.HURRIED_SECONDS))
    log = setup_logging("served")
    certificates = ServingCertificates(
        KubeClient(Configuration(host=url)), NAMESPACE, SECRET, tls_dir
    )
    draining = threading.Event()
    started_in = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/slow":
            time.sleep(1)
        if path == "/large":
            start_response("200 OK", [("Content-Length", str(64 * 2**20))])
            return (bytes(2**18) for _ in range(256))
        if path == "/readyz" and draining.is_set():
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        if path == "/unwanted":
            environ[BODY].leave()
            start_response("403 Forbidden", [("Content-Length", "0")])
            return []
        size = len(environ["wsgi.input"].read())
        facts = {
            "size": size,
            "in_worker": started_in == [os.getpid()],
            "swaps": certificates.swaps,
        }
        body = json.dumps(facts).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    serve(
        app,
        port=int(port),
        address="127.0.0.1",
        certificates=certificates,
        threads=4,
        max_connections=int(os.environ.get("SERVED_CONNECTIONS", "4096")),
        on_start=lambda: started_in.append(os.getpid()),
        on_stop=lambda: log.info("stopped", extra={"pid": os.getpid()}),
        draining=draining,
        drain_seconds=float(drain_seconds),
        graceful_seconds=float(os.environ.get("SERVED_GRACEFUL", "5")),
        plain=answer_plain,
    )


if __name__ == "__main__":
    main()
