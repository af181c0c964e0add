"""What a kubeconfig says, read without the official client, which takes half a second to import.

For kubeconfigs of one file whose user has a token or a client certificate. Whatever else one may
hold is `NotQuick`, and the official client does it.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

IN_CLUSTER_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_PORTS: Final = {"https": 443, "http": 80}
_USER_FIELDS: Final = frozenset({
    "token", "tokenFile", "client-certificate", "client-certificate-data", "client-key",
    "client-key-data",
})  # fmt: skip
_CLUSTER_FIELDS: Final = frozenset({
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify",
    "extensions",
})  # fmt: skip
_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


class NotQuick(Exception):
    """This takes the official client."""


@dataclass(frozen=True, slots=True)
class Quick:
    """A cluster as one context of a kubeconfig describes it.

    Attributes:
        folder: Where the kubeconfig is; paths in it are relative to that.
        cluster: Of that context, as it is written.
        user: Likewise.
        namespace: The context's.
        contexts: Names of all contexts of the file.
    """

    folder: Path
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    namespace: str
    contexts: tuple[str, ...]

    def check(self) -> None:
        """Whether requests can be made by what is known here.

        Raises:
            NotQuick: there is something in the kubeconfig, or between us and the cluster, that
                is not.
        """
        if not (self.cluster.keys() <= _CLUSTER_FIELDS and self.user.keys() <= _USER_FIELDS):
            raise NotQuick
        if any(os.environ.get(name) for name in _PROXIES):
            raise NotQuick
        url = urlsplit(self.server)
        if url.scheme not in _PORTS or not url.hostname or not url.hostname.isascii():
            raise NotQuick

    @property
    def server(self) -> str:
        """The API server's address, with the path before all paths if there is one."""
        return str(self.cluster.get("server", "")).rstrip("/")

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        url = urlsplit(self.server)
        return url.hostname or "", url.port or _PORTS[url.scheme]

    def token(self) -> str | None:
        """What the user logs in with; None if that is a certificate. A file is read anew.

        Raises:
            OSError: the file cannot be read.
        """
        token = self.user.get("token")
        if not token and "tokenFile" in self.user:
            token = (self.folder / self.user["tokenFile"]).read_text()
        return str(token).strip() or None if token else None

    def tls(self) -> ssl.SSLContext | None:
        """Whom to trust and who we are; None for plain HTTP.

        Raises:
            OSError: a file cannot be read, or holds no certificate.
        """
        if urlsplit(self.server).scheme == "http":
            return None
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


def is_in_cluster() -> bool:
    """Whether this is a pod, and nothing says to look elsewhere."""
    return (
        "KUBECONFIG" not in os.environ
        and "KUBERNETES_SERVICE_HOST" in os.environ
        and IN_CLUSTER_TOKEN.exists()
    )


def load(kubeconfig: str | None, context: str | None) -> Quick:
    """Read a kubeconfig.

    Args:
        kubeconfig: A file; None for kubectl's own way of finding one.
        context: A context of it; None for its current one.

    Raises:
        NotQuick: there is none, or more than one file; or it holds what is not known here.
    """
    import yaml

    if kubeconfig is None and context is None and is_in_cluster():
        raise NotQuick
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
