"""Asks retrieval as a person would: HTTPS, with a Kubernetes token, the certificate checked."""

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from demo.installation import NAMESPACE
from demo.kubectl import Kubectl

_SERVER_NAME = f"nightcap-retrieval.{NAMESPACE}.svc"


@dataclass(frozen=True, slots=True)
class Answer:
    """What retrieval said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _Connection(http.client.HTTPSConnection):
    """To a forwarded port of this machine, with the service's name in the handshake."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, context=context, timeout=60)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=_SERVER_NAME)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Retrieval, reached on a local port."""

    port: int
    context: ssl.SSLContext

    def ask(
        self, method: str, path: str, token: str | None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request, as whoever the token says; returns the whole answer."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        connection = self.connect()
        try:
            connection.request(method, path, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPSConnection:
        """A connection, for answers that are read bit by bit."""
        return _Connection(self.port, self.context)

    def get(self, path: str, token: str | None, **headers: str) -> Answer:
        return self.ask("GET", path, token, headers)


@contextlib.contextmanager
def reach_retrieval(kubectl: Kubectl) -> Iterator[Retrieval]:
    """Forward a port to retrieval; its certificate is checked against the installation's CA."""
    bundle = kubectl.json("-n", NAMESPACE, "get", "configmap", "nightcap-ca")["data"]["ca.crt"]
    context = ssl.create_default_context(cadata=bundle)
    with kubectl.port_forward(NAMESPACE, "service/nightcap-retrieval", 443) as port:
        yield Retrieval(port, context)
