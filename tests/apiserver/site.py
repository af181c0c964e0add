"""A whole installation of processes beside a private API server.

Two webhooks behind one Service, a collector, and the controller's loop that makes and rotates
their certificates; each with the rights of its own service account and no others.
"""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from certs.loop import CertificateLoop
from certs.settings import CertificateSettings
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from tests import patience
from tests.apiserver.balancer import Balancer
from tests.apiserver.private import BASE, SIDECAR_IMAGE, PrivateApi, free_port, own_kubeconfig

SYSTEM = "nightcap-system"


class Site:
    """Starts everything; what is to be watched is an attribute."""

    def __init__(
        self,
        api: PrivateApi,
        settings: CertificateSettings,
        webhook_environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start everything but the certificates' loop.

        Args:
            api: A private API server of its own.
            settings: Of the loop.
            webhook_environ: More variables for the webhooks.
        """
        self.api = api
        self._webhook_environ = webhook_environ
        api.namespace(SYSTEM)
        api.apply(*manifest("crd.yaml"), *manifest("rbac.yaml"))
        self.replicas = [free_port(), free_port()]
        self.balancer = Balancer(self.replicas)
        self.collector_port = free_port()
        # The API server finds a Service of this kind by the name of the host it runs on.
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "nightcap-webhook", "namespace": SYSTEM},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }
        others = [
            document
            for document in manifest("services.yaml")
            if document["metadata"]["name"] != "nightcap-webhook"
        ]
        api.apply(service, *others, *self.webhooks())
        self.certificates = CertificateLoop(self.client_of("nightcap-controller"), settings)
        for number, port in enumerate(self.replicas):
            self.start_webhook(number, port)
        self._start_retrieval("collector", {"NIGHTCAP_COLLECTOR_PORT": str(self.collector_port)})

    def start(self) -> None:
        """Make the first certificates, and wait until everybody listens and pods are injected."""
        self.certificates.start()
        for port in (*self.replicas, self.collector_port):
            self.eventually(f"port {port} listens", lambda port=port: listens(port))
        name = self.api.namespace(f"canary-{time.time_ns()}", **{"nightcap.dev/inject": "enabled"})
        self.eventually(
            "pods are injected", lambda: injected(self.api.create_pod(name, bare_pod()))
        )

    def close(self) -> None:
        self.certificates.stop()
        self.balancer.close()

    def eventually(self, what: str, holds: Callable[[], Any]) -> Any:
        """Wait until something holds; what it said."""
        return eventually(what, holds, self.logs)

    def logs(self) -> str:
        """The last of what each of our programs said."""
        return "\n".join(
            f"{file.name}: {file.read_text()[-2000:]}"
            for file in sorted(self.api.folder.glob("*.log"))
            if file.name not in ("etcd.log", "kube-apiserver.log")
        )

    def webhooks(self) -> Iterator[dict[str, Any]]:
        """The webhook configurations of the manifests, with the Service at another port."""
        for document in manifest("webhook-configuration.yaml"):
            for entry in document["webhooks"]:
                entry["clientConfig"]["service"]["port"] = self.balancer.port
            yield document

    def ca_bundle(self) -> str:
        """What the API server trusts just now, base64."""
        path = paths.mutating_webhook("nightcap")
        found = json.loads(self.api.client.request("GET", path))
        bundles = {entry["clientConfig"].get("caBundle", "") for entry in found["webhooks"]}
        assert len(bundles) == 1
        return str(bundles.pop())

    def client_of(self, account: str) -> KubeClient:
        """A client with the rights of one of our service accounts."""
        return KubeClient.from_environment(str(own_kubeconfig(self.api, account)))

    def start_webhook(self, number: int, port: int) -> int:
        """Start a replica; returns its process id."""
        tls = self.api.folder / f"tls-webhook-{number}"
        tls.mkdir(exist_ok=True)
        self.api.run(
            f"webhook-{number}", sys.executable, "-m", "webhook",
            environ={
                "KUBECONFIG": str(own_kubeconfig(self.api, "nightcap-webhook")),
                "NIGHTCAP_SIDECAR_IMAGE": SIDECAR_IMAGE,
                "NIGHTCAP_TLS_DIR": str(tls),
                "NIGHTCAP_LISTEN_PORT": str(port),
                "NIGHTCAP_METRICS_PORT": "0",
                **self._webhook_environ,
            },
        )  # fmt: skip
        return self.api.newest_pid()

    def start_files(self, environ: Mapping[str, str] = MappingProxyType({})) -> int:
        """Start retrieval's listener for people; returns its port.

        Args:
            environ: More variables.
        """
        port = free_port()
        self._start_retrieval("files", {"NIGHTCAP_FILES_PORT": str(port), **environ})
        self.eventually("the files listener listens", lambda: listens(port))
        return port

    def _start_retrieval(self, program: str, environ: Mapping[str, str]) -> None:
        store = self.api.folder / "store"
        store.mkdir(exist_ok=True)
        self.api.run(
            program, sys.executable, "-m", "retrieval", program,
            environ={
                "KUBECONFIG": str(own_kubeconfig(self.api, "nightcap-retrieval")),
                "NIGHTCAP_STORE": str(store),
                "NIGHTCAP_TLS_DIR": str(self.api.folder / f"tls-{program}"),
                "NIGHTCAP_METRICS_PORT": "0",
                **environ,
            },
        )  # fmt: skip


@contextlib.contextmanager
def a_site(
    folder: Path,
    settings: CertificateSettings,
    webhook_environ: Mapping[str, str] = MappingProxyType({}),
    *,
    before: Callable[[PrivateApi], None] = lambda _: None,
    installed: Callable[[PrivateApi], None] = lambda _: None,
) -> Iterator[Site]:
    """A site on an API server of its own, started.

    Args:
        folder: For all its files.
        settings: Of the certificates' loop.
        webhook_environ: More variables for the webhooks.
        before: Done to the server before anything of ours is there.
        installed: Done to it when our objects are there and nobody has a certificate.
    """
    with contextlib.ExitStack() as closing:
        api = PrivateApi(folder)
        closing.callback(api.close)
        before(api)
        site = Site(api, settings, webhook_environ)
        closing.callback(site.close)
        installed(api)
        site.start()
        yield site


def eventually(what: str, holds: Callable[[], Any], logs: Callable[[], str] = str) -> Any:
    """Wait until something holds; what it said.

    Raises:
        AssertionError: with `what` and the logs.
    """
    return patience.eventually(holds, what, said=logs)


def manifest(name: str) -> Iterator[dict[str, Any]]:
    """The objects of one of our manifests."""
    yield from yaml.safe_load_all((BASE / name).read_text())


def listens(port: int) -> bool:
    """Whether somebody takes connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def bare_pod() -> dict[str, Any]:
    return {
        "metadata": {"generateName": "web-", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "registry.local/app:1"}]},
    }


def injected(pod: dict[str, Any]) -> bool:
    return any(c["name"] == "nightcap" for c in pod["spec"].get("initContainers", ()))
