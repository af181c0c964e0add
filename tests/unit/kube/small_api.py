"""A small HTTP server that lists, watches and breaks like an API server; for tests only."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import Configuration

from nightcap.kube.client import KubeClient

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, body, and more headers; one that announces more bytes than come breaks off."""


class SmallApi:
    """Objects by path, a history of events, and ways to misbehave."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.answers: dict[tuple[str, str], list[Answer]] = {}  # the last one stays
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.headers: list[dict[str, str]] = []
        self.version = 100
        self.changed = threading.Condition()
        self.cut = 0  # watches of an earlier cut end without a word
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def client(self) -> KubeClient:
        return KubeClient(Configuration(host=self.url))

    def put(self, path: str, **fields: Any) -> dict[str, Any]:
        with self.changed:
            self.version += 1
            old = self.objects.get(path)
            name = path.rpartition("/")[2]
            meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}"}
            meta |= fields.pop("metadata", {})
            item = {"metadata": {**meta, "resourceVersion": str(self.version)}, **fields}
            self.objects[path] = item
            self.history.append((self.version, "MODIFIED" if old else "ADDED", item))
            self.changed.notify_all()
            return item

    def delete(self, path: str) -> None:
        with self.changed:
            self.version += 1
            item = self.objects.pop(path)
            last = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
            self.history.append((self.version, "DELETED", last))
            self.changed.notify_all()

    def say(self, kind: str, item: dict[str, Any]) -> None:
        """Put any event into the watches, such as a bookmark or an error."""
        with self.changed:
            self.version += 1
            self.history.append((self.version, kind, item))
            self.changed.notify_all()

    def cut_watches(self) -> None:
        with self.changed:
            self.cut += 1
            self.changed.notify_all()

    def close(self) -> None:
        self.cut_watches()
        self.server.shutdown()
        self.server.server_close()

    def _handler(api) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - two selfs
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                # Whoever has seen enough hangs up, also in the middle of an answer.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    super().handle()

            def finish(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    super().finish()

            def handle_any(self) -> None:
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.requests.append((self.command, url.path, query, body))
                port = str(self.client_address[1])
                api.headers.append({**self.headers, "X-Port": port})
                scripted = api.answers.get((self.command, url.path))
                if scripted:
                    self.answer(*(scripted.pop(0) if len(scripted) > 1 else scripted[0]))
                elif url.path in api.objects:
                    self.answer(200, api.objects[url.path])
                elif query.get("watch"):
                    self.watch(int(query["resourceVersion"]))
                elif any(path.startswith(url.path + "/") for path in api.objects):
                    self.list(url.path, query)
                else:
                    self.list(url.path, query) if query else self.answer(404, {"code": 404})

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815

            def answer(self, status: int, body: Any, more: dict[str, str] | None = None) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                headers = {"Content-Length": str(len(data)), **(more or {})}
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                if int(headers["Content-Length"]) > len(data):
                    self.close_connection = True

            def list(self, path: str, query: dict[str, str]) -> None:
                with api.changed:
                    items = [v for k, v in sorted(api.objects.items()) if k.startswith(path + "/")]
                    start, limit = int(query.get("continue", 0)), int(query.get("limit", 500))
                    meta: dict[str, str] = {"resourceVersion": str(api.version)}
                    if start + limit < len(items):
                        meta["continue"] = str(start + limit)
                self.answer(200, {"metadata": meta, "items": items[start : start + limit]})

            def watch(self, version: int) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                cut, seen = api.cut, 0
                while True:
                    with api.changed:
                        api.changed.wait_for(lambda: api.cut != cut or len(api.history) > seen)  # noqa: B023
                        events, seen = api.history[seen:], len(api.history)
                        if api.cut != cut:
                            self.close_connection = True
                            return
                    for at, kind, item in events:
                        if at > version:
                            line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def a_kubeconfig(url: str, *, with_token: bool = True) -> str:
    """Contexts `shop` (the current one) and `bare`; JSON is YAML."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "small", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {"token": "the-token"} if with_token else {}}],
            "contexts": [
                {
                    "name": "shop",
                    "context": {"cluster": "small", "user": "me", "namespace": "shop"},
                },
                {"name": "bare", "context": {"cluster": "small", "user": "me"}},
            ],
            "current-context": "shop",
        }
    )
