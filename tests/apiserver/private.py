"""A private etcd and kube-apiserver on the loopback, for questions that admission alone answers.

The programs are those of the disposable cluster, from its cache; nothing runs on it. So what
controllers would do (a namespace's default service account, a quota's status) is done here.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from certs.bundle import Bundle, data_of
from certs.issue import new_leaf, new_root
from nightcap.contract import paths as sidecar_paths
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH, KubeClient
from nightcap.kube.errors import ApiError, Conflict
from tests.apiserver import minors
from tests.cluster import build, programs
from tests.cluster.certificates import Authority, Identity, kubeconfig, write_signing_pair
from tests.cluster.progress import to_stderr

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = REPOSITORY / "manifests" / "base"
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
SIDECAR_IMAGE = "registry.local/nightcap/sidecar:1"
_PATIENCE_SECONDS = 60


def free_port() -> int:
    """A port that nobody listens on, outside of those that outgoing connections take."""
    while True:
        port = random.randrange(15000, 30000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class PrivateApi:
    """One API server with its store, in one folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        """Boot it.

        Args:
            folder: For all its files.
            flags: Of the API server, besides those that every test wants.
        """
        build.build_for_cluster(to_stderr)
        self.folder = folder
        self._flags = flags
        self.kubeconfig = folder / "admin"
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._programs: list[subprocess.Popen[bytes]] = []
        self.authority = Authority(folder, "ca")
        try:
            self._boot()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the programs with all that they started: nobody needs what they hold."""
        for program in reversed(self._programs):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
        for program in reversed(self._programs):
            program.wait(10)

    def run(self, name: str, *argv: str, environ: dict[str, str] | None = None) -> Path:
        """Start a program that ends with this server; returns its log."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as stream:
            self._programs.append(
                subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                    cwd=REPOSITORY, env={**os.environ, **(environ or {})}, start_new_session=True,
                )
            )  # fmt: skip
        return log

    def restart(self, word: str) -> None:
        """kill -9 of the program with this word in its command line, and start it again."""
        killed = next(program for program in self._programs if word in str(program.args))
        self._programs.remove(killed)
        killed.kill()
        killed.wait(10)
        assert isinstance(killed.args, tuple)
        self.run(Path(killed.args[0]).name, *killed.args)

    def compact(self) -> None:
        """Let etcd forget all history, as an API server has it do every five minutes."""
        now = self._etcd("maintenance/status", {})["header"]["revision"]
        self._etcd("kv/compaction", {"revision": now, "physical": True})

    def _etcd(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own etcd
            f"{self._etcd_url}/v3/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            said: dict[str, Any] = json.load(answer)
        return said

    def wait_ready(self) -> None:
        """Wait until the API server answers, as after `restart`."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._is_ready():
            assert time.monotonic() < deadline, self._log.read_text()[-4000:]
            time.sleep(0.1)

    def pid_of(self, word: str) -> int:
        """The process among ours whose command line has this word."""
        return next(program.pid for program in self._programs if word in str(program.args))

    def newest_pid(self) -> int:
        """The process that was started last."""
        return self._programs[-1].pid

    def certificate_of(self, user: str) -> tuple[Path, Path]:
        """A client certificate of a person, and its key."""
        return self.authority.issue(Identity(user, user))

    def kubeconfig_of(self, user: str, certificate: tuple[Path, Path]) -> Path:
        """A kubeconfig of who holds a client certificate."""
        file = self.folder / f"{user}-kubeconfig"
        file.write_text(kubeconfig(self.url, self.authority.file, *certificate))
        return file

    def kubectl(
        self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """kubectl as the administrator or another, with what it says on both outputs."""
        binary = programs.program(programs.KUBERNETES, "kubectl")
        return subprocess.run(
            [str(binary), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def apply(self, *documents: dict[str, Any], server_side: bool = False) -> None:
        """Apply objects.

        Raises:
            AssertionError: in kubectl's words.
        """
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        how = ["--server-side", "--force-conflicts"] if server_side else []
        done = self.kubectl("apply", *how, "-f", "-", stdin=text)
        assert done.returncode == 0, done.stderr

    def namespace(self, name: str, **labels: str) -> str:
        """Make a namespace, if there is none yet, with the account that its pods run as."""
        for path, metadata in (
            (paths.namespaces(), {"name": name, "labels": labels}),
            (f"{paths.namespace(name)}/serviceaccounts", {"name": "default"}),
        ):
            with contextlib.suppress(Conflict):
                self.client.request("POST", path, body={"metadata": metadata})
        return name

    def create_pod(
        self, namespace: str, pod: dict[str, Any], *, dry_run: bool = True
    ) -> dict[str, Any]:
        """Create a pod, by default without keeping it; returns it as the server has it.

        Raises:
            ApiError: it is refused.
        """
        query = {"dryRun": "All"} if dry_run else {}
        answer = self.client.request("POST", paths.pods(namespace), query=query, body=pod)
        created: dict[str, Any] = json.loads(answer)
        return created

    def quota(self, namespace: str, name: str, hard: dict[str, str], **more: Any) -> None:
        """A quota with the status that its controller would give it."""
        used = more.pop("used", {})
        spec = {"hard": hard, **more}
        self.client.request(
            "POST",
            paths.resource_quotas(namespace),
            body={"metadata": {"name": name}, "spec": spec},
        )
        status = {"hard": hard, "used": {**dict.fromkeys(hard, "0"), **used}}
        self.client.request(
            "PATCH",
            f"{paths.resource_quotas(namespace)}/{name}/status",
            body={"status": status},
            content_type=MERGE_PATCH,
        )

    def limit_range(self, namespace: str, *limits: dict[str, Any]) -> None:
        self.client.request(
            "POST",
            paths.limit_ranges(namespace),
            body={"metadata": {"name": "bounds"}, "spec": {"limits": list(limits)}},
        )

    # Booting.

    def _boot(self) -> None:
        etcd, peers = free_port(), free_port()
        self._etcd_url = f"http://127.0.0.1:{etcd}"
        binary = programs.program(programs.ETCD, "etcd")
        self.run(
            "etcd", str(binary), f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}", "--log-level=error",
        )  # fmt: skip
        certificate, key = self.authority.issue(
            Identity("apiserver", "kube-apiserver", names=("localhost",), addresses=(LOOPBACK,))
        )
        write_signing_pair(self.folder, "service-account")
        admin = self.authority.issue(Identity("admin", "admin", ("system:masters",)))
        self.kubeconfig.write_text(kubeconfig(self.url, self.authority.file, *admin))
        issuer = "https://kubernetes.default.svc.cluster.local"
        binary = minors.apiserver()
        self._log = self.run(
            "kube-apiserver", str(binary),
            f"--etcd-servers={self._etcd_url}",
            "--advertise-address=127.0.0.1", "--bind-address=127.0.0.1",
            f"--secure-port={self.port}", f"--cert-dir={self.folder}",
            f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority.file}",
            f"--service-account-issuer={issuer}",
            f"--service-account-key-file={self.folder / 'service-account.pub'}",
            f"--service-account-signing-key-file={self.folder / 'service-account.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC", "--allow-privileged=true",
            # It advertises a loopback address, which no endpoint may have.
            "--endpoint-reconciler-type=none",
            *self._flags,
        )  # fmt: skip
        self.client = KubeClient.from_environment(str(self.kubeconfig))
        self.wait_ready()

    def _is_ready(self) -> bool:
        with contextlib.suppress(ApiError):
            self.client.request("GET", "/readyz")
            self.client.request("GET", paths.namespace("kube-system"))
            return True
        return False


class Installation:
    """Our webhook as a process beside a private API server, with its own rights and no others."""

    def __init__(self, api: PrivateApi, *, wait: bool = True, api_port: int = 0) -> None:
        """Install and start.

        Args:
            api: Where.
            wait: Until pods are injected.
            api_port: Where the webhook reaches the API server, if somebody is in between.
        """
        self.api = api
        self.port = free_port()
        self.metrics_port = free_port()
        self.root = new_root(1, time.time())
        self._install()
        tls = api.folder / "webhook-tls"
        tls.mkdir()
        self.log = api.run(
            "webhook", sys.executable, "-m", "webhook",
            environ={
                "KUBECONFIG": str(own_kubeconfig(self.api, "nightcap-webhook", api_port)),
                "NIGHTCAP_SIDECAR_IMAGE": SIDECAR_IMAGE,
                "NIGHTCAP_TLS_DIR": str(tls),
                "NIGHTCAP_LISTEN_PORT": str(self.port),
                "NIGHTCAP_METRICS_PORT": str(self.metrics_port),
            },
        )  # fmt: skip
        if wait:
            self.wait_injecting()

    def documents(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of one of our manifests."""
        yield from yaml.safe_load_all((BASE / name).read_text())

    def webhooks(self) -> Iterator[dict[str, Any]]:
        """The webhook configurations, aimed at this process instead of a Service."""
        for document in self.documents("webhook-configuration.yaml"):
            for entry in document["webhooks"]:
                path = entry["clientConfig"]["service"]["path"]
                entry["clientConfig"] = {
                    "url": f"https://127.0.0.1:{self.port}{path}",
                    "caBundle": _base64(self.root.certificate),
                }
            yield document

    def configure(self, *, injecting: bool) -> None:
        """Let the API server call our webhooks, or not."""
        if injecting:
            self.api.apply(*self.webhooks(), server_side=True)
        else:
            for document in self.webhooks():
                self.api.kubectl("delete", document["kind"], "nightcap", "--ignore-not-found")

    def wait_injecting(self) -> None:
        """Wait until a pod of a namespace made for that is injected."""
        name = self.api.namespace(f"canary-{time.time_ns()}", **{"nightcap.dev/inject": "enabled"})
        canary = {
            "metadata": {"name": "canary"},
            "spec": {"containers": [{"name": "a", "image": "a"}]},
        }
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while "initContainers" not in self.api.create_pod(name, canary)["spec"]:
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def _install(self) -> None:
        self.api.namespace("nightcap-system")
        self.api.apply(*self.documents("crd.yaml"), *self.documents("rbac.yaml"))
        collector = list(self.documents("services.yaml"))
        leaf = new_leaf(
            self.root, ["localhost", "127.0.0.1", sidecar_paths.collector_name(1)], time.time()
        )
        bundle = Bundle(pairs={1: leaf}, current=1, ca_bundle=self.root.certificate)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "nightcap-webhook-tls", "namespace": "nightcap-system"},
            "data": data_of(bundle),
        }
        self.api.apply(secret, *collector, *self.webhooks())

    def decisions(self) -> list[dict[str, Any]]:
        """Its log lines about requests, oldest first."""
        # What is being written has no end yet.
        whole = self.log.read_text().rpartition("\n")[0]
        lines = (json.loads(line) for line in whole.splitlines())
        return [line for line in lines if line["event"] == "admission"]


def own_kubeconfig(api: PrivateApi, account: str, port: int = 0) -> Path:
    """As one of our service accounts: what it may not do fails here as on a cluster.

    Args:
        api: Of which server.
        account: Name of the account.
        port: By which the server is reached, if it is another.
    """
    file = api.folder / f"{account}-kubeconfig{port or ''}"
    if not file.exists():
        token = api.kubectl("-n", "nightcap-system", "create", "token", account)
        assert token.returncode == 0, token.stderr
        found = json.loads(api.kubeconfig.read_text())
        found["users"][0]["user"] = {"token": token.stdout.strip()}
        if port:
            found["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        file.write_text(json.dumps(found))
    return file


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
