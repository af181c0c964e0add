"""A program as webhook and retrieval are, with API, PORT, DIR and DRAIN as arguments."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from kubernetes.client import Configuration

from certs.serving import ServingCertificates, serve
from nightcap.kube.client import KubeClient
from nightcap.kube.logs import setup_logging
from tests.unit.certs.tls import NAMESPACE, SECRET


def main() -> None:
    url, port, tls_dir, drain_seconds = sys.argv[1:]
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
        if path == "/readyz" and draining.is_set():
            start_response("503 Service Unavailable", [("Content-Length", "0")])
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
        on_start=lambda: started_in.append(os.getpid()),
        on_stop=lambda: log.info("stopped", extra={"pid": os.getpid()}),
        draining=draining,
        drain_seconds=float(drain_seconds),
        graceful_seconds=5,
        plain=lambda path, body: b'{"plain": true}' if path == "/plain" else None,
    )


if __name__ == "__main__":
    main()
