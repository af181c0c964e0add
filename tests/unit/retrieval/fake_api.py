"""The few answers of a Kubernetes API that retrieval asks for, over real HTTP on loopback."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes.client import Configuration

from nightcap.kube.client import KubeClient

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"


class FakeApi:
    """State is public: tests say who is known, what is allowed and what exists."""

    def __init__(self) -> None:
        self.users: dict[tuple[str, str], dict[str, Any]] = {}
        self.allowed: set[tuple[str, ...]] = set()
        self.captures: list[dict[str, Any]] = []
        self.services: list[dict[str, Any]] = []
        self.secrets: list[dict[str, Any]] = []
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.is_down = False
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                if "watch=" in self.path:
                    time.sleep(0.5)  # a watch in which nothing happens
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self._answer(*api.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*api.post(self.path, body))

            def _answer(self, status: int, value: object) -> None:
                api.asked.append(self.path)
                body = json.dumps(value).encode()
                self.send_response(500 if api.is_down else status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # a crowd of pods asks at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self._server.server_port}"
        self.url = configuration.host
        self.client = KubeClient(configuration)

    def close(self) -> None:
        self.client.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_pod_token(self, token: str, namespace: str, pod: str, uid: str) -> None:
        extra = {POD_NAME: [pod], POD_UID: [uid]}
        name = f"system:serviceaccount:{namespace}:default"
        self.users[token, "nightcap"] = {"username": name, "extra": extra}

    def get(self, path: str) -> tuple[int, object]:
        parts = path.split("?")[0].strip("/").split("/")
        has_name = parts[-2] in ("pods", "packetcaptures", "secrets")
        namespace, kind, name = parts[-3:] if has_name else (*parts[-2:], "")
        if kind == "pods":
            pod = self.pods.get((namespace, name))
            return (200, pod) if pod else (404, {"reason": "NotFound", "message": "no pod"})
        by_kind = {"secrets": self.secrets, "services": self.services}
        stored = by_kind.get(kind, self.captures)
        found = [o for o in stored if namespace in (o["metadata"]["namespace"], "v1alpha1")]
        if kind == "packetcaptures":
            found = [o for o in found if path.startswith(f"/apis/{o['apiVersion']}/")]
        if not name:
            return 200, {"metadata": {"resourceVersion": "1"}, "items": found}
        for item in found:
            if item["metadata"]["name"] == name:
                return 200, item
        return 404, {"reason": "NotFound", "message": f"no {kind} {name}"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, object]:
        spec = body["spec"]
        if path.endswith("tokenreviews"):
            audience = (spec.get("audiences") or ["api"])[0]
            user = self.users.get((spec["token"], audience))
            status = {"authenticated": bool(user), "user": user or {}, "audiences": [audience]}
            return 201, {"status": status}
        what = spec.get("resourceAttributes") or spec["nonResourceAttributes"]
        return 201, {"status": {"allowed": (spec["user"], *what.values()) in self.allowed}}
