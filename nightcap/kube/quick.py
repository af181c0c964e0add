"""One GET without the official client, which takes longer to import than a shell should wait.

For completion: kubeconfigs with a token or a client certificate, one file, no proxy. Whatever else
a kubeconfig may hold is `NotQuick`, and the official client does it. HTTP/1.0 over a socket: what
the standard library's client imports for headers of mail takes longer than the question.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

_SECONDS: Final = 3.0
_PORTS: Final = {"https": 443, "http": 80}
_USER_FIELDS: Final = frozenset({
    "token", "tokenFile", "client-certificate", "client-certificate-data", "client-key",
    "client-key-data",
})  # fmt: skip
_CLUSTER_FIELDS: Final = frozenset({
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify",
    "tls-server-name", "extensions",
})  # fmt: skip
_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


class NotQuick(Exception):
    """This takes the official client."""


@dataclass(frozen=True, slots=True)
class Quick:
    """A cluster as one context of a kubeconfig describes it.

    Attributes:
        namespace: The context's.
        contexts: Names of all contexts of the file.
    """

    folder: Path
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    namespace: str
    contexts: tuple[str, ...]

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One object or list.

        Raises:
            NotQuick: there is something in the kubeconfig that is not known here.
            OSError: no answer; also an answer that is a refusal.
        """
        if not (self.cluster.keys() <= _CLUSTER_FIELDS and self.user.keys() <= _USER_FIELDS):
            raise NotQuick
        if any(os.environ.get(name) for name in _PROXIES):
            raise NotQuick
        url = urlsplit(str(self.cluster.get("server", "")))
        if url.scheme not in _PORTS or not url.hostname or not url.hostname.isascii():
            raise NotQuick
        headers = {"Host": url.netloc, "Accept": "application/json", **self._login()}
        asked = f"{url.path.rstrip('/')}{path}?{urlencode(query)}"
        request = f"GET {asked} HTTP/1.0\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        # A host of bytes is taken as it is; one of text loads the tables of Unicode first.
        host = url.hostname.encode("ascii")
        address = (host, url.port or _PORTS[url.scheme])
        with socket.create_connection(address, _SECONDS) as plain:  # type: ignore[arg-type]
            if url.scheme == "http":
                return _answer(plain, request)
            with self._context().wrap_socket(plain, server_hostname=host) as sealed:
                return _answer(sealed, request)

    def _login(self) -> dict[str, str]:
        token = self.user.get("token")
        if not token and "tokenFile" in self.user:
            token = (self.folder / self.user["tokenFile"]).read_text().strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _context(self) -> ssl.SSLContext:
        if "tls-server-name" in self.cluster:
            raise NotQuick
        authority = self._bytes(self.cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if self.cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate = self._bytes(self.user, "client-certificate")
        key = self._bytes(self.user, "client-key")
        if certificate and key:
            import tempfile

            # OpenSSL reads them from a file alone; it is this user's, and gone at once.
            with tempfile.NamedTemporaryFile(prefix="nightcap-") as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def _bytes(self, place: Mapping[str, Any], field: str) -> bytes:
        if f"{field}-data" in place:
            return base64.b64decode(place[f"{field}-data"])
        return (self.folder / place[field]).read_bytes() if field in place else b""


def _answer(connection: socket.socket, request: str) -> dict[str, Any]:
    """What a server says to one request; with HTTP/1.0 the end of the connection ends it."""
    connection.sendall(f"{request}\r\n".encode("latin-1"))
    with connection.makefile("rb") as file:
        status = file.readline().split(maxsplit=2)
        while file.readline().strip():
            pass
        data = file.read()
    if status[1:2] != [b"200"]:
        raise OSError(b" ".join(status[1:]).decode("latin-1").strip())
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError as error:  # such as a proxy's own way to end an answer
        raise NotQuick from error
    return found


def load(kubeconfig: str | None, context: str | None) -> Quick:
    """Read a kubeconfig.

    Args:
        kubeconfig: A file; None for kubectl's own way of finding one.
        context: A context of it; None for its current one.

    Raises:
        NotQuick: there is none, or more than one file; or it holds what is not known here.
    """
    import yaml

    named = kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    if os.pathsep in named:
        raise NotQuick
    try:
        text = Path(named).read_bytes()
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        config = json.loads(text) if text[:1] == b"{" else yaml.load(text, loader)  # noqa: S506
        chosen = _named(config["contexts"], context or config["current-context"], "context")
        return Quick(
            folder=Path(named).parent,
            cluster=_named(config["clusters"], chosen["cluster"], "cluster"),
            user=_named(config.get("users") or (), chosen.get("user"), "user"),
            namespace=str(chosen.get("namespace") or "default"),
            contexts=tuple(str(entry["name"]) for entry in config["contexts"]),
        )
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise NotQuick from error


def _named(entries: Any, name: str | None, kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {entry["name"]: entry[kind] for entry in entries}[name]
    return found or {}
