"""A webhook as six products have shipped it: it rebuilds pods and loses what it does not know."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from certs.contexts import write_private
from certs.issue import new_leaf, new_root


class StrippingWebhook:
    """Strips `restartPolicy` from every init container of pods labelled `strip: please`."""

    def __init__(self, folder: Path) -> None:
        root = new_root(1, time.time())
        leaf = new_leaf(root, ["127.0.0.1"], time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        write_private(folder / "stripping.pem", leaf.key + leaf.certificate, context)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._ca = root.certificate

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def configuration(self, name: str, reinvocation: str) -> dict[str, Any]:
        """Its MutatingWebhookConfiguration; webhooks are called in the order of these names."""
        url = f"https://127.0.0.1:{self._server.server_address[1]}/"
        bundle = base64.b64encode(self._ca.encode()).decode()
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [
                {
                    "name": "strip.example.com",
                    "clientConfig": {"url": url, "caBundle": bundle},
                    "rules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                        }
                    ],
                    "objectSelector": {"matchLabels": {"strip": "please"}},
                    "failurePolicy": "Fail",
                    "sideEffects": "None",
                    "reinvocationPolicy": reinvocation,
                    "admissionReviewVersions": ["v1"],
                }
            ],
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        containers = request["object"]["spec"].get("initContainers", [])
        patch = [
            {"op": "remove", "path": f"/spec/initContainers/{index}/restartPolicy"}
            for index, container in enumerate(containers)
            if "restartPolicy" in container
        ]
        review["response"] = {
            "uid": request["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
        }
        del review["request"]
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""
