"""A namespace on the real cluster, and what tests do in it."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import subprocess
import uuid
from dataclasses import dataclass
from typing import Any

from demo.evidence import CaptureFile, open_zip
from demo.files import Answer, Retrieval, reach_retrieval
from demo.kubectl import Kubectl, KubectlError, wait_for
from demo.stage import Stage
from nightcap.kube import paths
from nightcap.kube.client import KubeClient

CONTROLLER = "system:serviceaccount:nightcap-system:nightcap-controller"
ORDERS = "nightcap.dev/orders"
INJECTED = "nightcap.dev/injected"
CAPTURES = "packetcaptures.nightcap.dev"
"""With the group: Calico's may be installed as well, and then has the singular."""


@dataclass(frozen=True, slots=True)
class Shop:
    """One namespace."""

    stage: Stage
    name: str

    @classmethod
    def open(cls, stage: Stage, title: str, labels: dict[str, str] | None = None) -> Shop:
        base = re.sub(r"[^a-z0-9]+", "-", title.lower())[:40].strip("-")
        name = f"{base}-{uuid.uuid4().hex[:6]}"
        wanted = {"nightcap.dev/inject": "enabled", **(labels or {})}
        manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": wanted},
        }
        stage.kubectl.run("create", "-f", "-", stdin=json.dumps(manifest))
        shop = cls(stage, name)
        wait_for("the default service account", lambda: shop.get("serviceaccount", "default"), 30)
        return shop

    def close(self) -> None:
        self.kubectl.run("delete", "namespace", self.name, "--wait=false")

    @property
    def kubectl(self) -> Kubectl:
        return self.stage.kubectl

    def run(self, *arguments: str, stdin: str | None = None, user: str | None = None) -> str:
        kubectl = Kubectl(self.kubectl.binary, self.kubectl.kubeconfig, user)
        return kubectl.run("-n", self.name, *arguments, stdin=stdin)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.json("-n", self.name, "get", kind, name)
        return found

    def create(self, *objects: dict[str, Any], user: str | None = None) -> str:
        manifest = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.run("create", "-f", "-", stdin=json.dumps(manifest), user=user)

    # Pods.

    def pod(self, name: str, **changes: Any) -> dict[str, Any]:
        """A catalog pod that listens on 8080; `changes` go into its spec or, as `labels` and
        `annotations`, into its metadata.
        """
        metadata = {
            "name": name,
            "labels": changes.pop("labels", {"app": name}),
            "annotations": changes.pop("annotations", {}),
        }
        spec = {
            "terminationGracePeriodSeconds": 5,
            "containers": [
                {
                    "name": "app",
                    "image": self.stage.images.app,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["catalog", "8080"],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }
            ],
            **changes,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def start(self, *pods: dict[str, Any]) -> None:
        self.create(*pods)
        for pod in pods:
            self.wait_ready(pod["metadata"]["name"])

    def wait_ready(self, name: str) -> None:
        self.run("wait", "pod", name, "--for=condition=Ready", "--timeout=60s")

    def annotations(self, pod: str) -> dict[str, str]:
        found: dict[str, str] = self.get("pod", pod)["metadata"].get("annotations", {})
        return found

    def orders(self, pod: str) -> dict[str, Any] | None:
        text = self.annotations(pod).get(ORDERS)
        return json.loads(text) if text else None

    def containers(self, pod: str) -> list[str]:
        return [c["name"] for c in self.get("pod", pod)["spec"].get("initContainers", [])]

    def python(self, pod: str, code: str) -> str:
        """Run Python in the pod's application container."""
        return self.run("exec", pod, "-c", "app", "--", "python3", "-c", code)

    def send_udp(self, pod: str, host: str, port: int, payloads: list[str]) -> None:
        """Send one datagram for each payload, spaced, so that none is lost to a full socket."""
        self.python(
            pod,
            "import socket,time\n"
            "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
            f"for p in {payloads!r}:\n"
            f"  s.sendto(p.encode(),({host!r},{port}));time.sleep(0.005)",
        )

    def patch_status(self, pod: str, annotations: dict[str, str], user: str) -> None:
        """Patch a pod's annotations through its status, as the controller does.

        Not by kubectl, which reads before it patches, and so needs a right that the
        controller does not have.
        """
        self.patch_pod(f"{pod}/status", {"metadata": {"annotations": annotations}}, user)

    def patch_pod(self, path: str, change: dict[str, Any], user: str) -> None:
        client = KubeClient.from_environment(str(self.kubectl.kubeconfig))
        client.request(
            "PATCH",
            f"{paths.pods(self.name)}/{path}",
            body=change,
            content_type="application/merge-patch+json",
            headers={"Impersonate-User": user},
        )

    def ip(self, pod: str) -> str:
        address: str = self.get("pod", pod)["status"]["podIP"]
        return address

    # Captures.

    def capture(self, name: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "nightcap.dev/v1alpha1",
            "kind": "PacketCapture",
            "metadata": {"name": name},
            "spec": spec,
        }

    def status(self, capture: str) -> dict[str, Any]:
        status: dict[str, Any] = self.get(CAPTURES, capture).get("status", {})
        return status

    def condition(self, capture: str, kind: str) -> dict[str, Any] | None:
        conditions = self.status(capture).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), None)

    def wait_open(self, capture: str, pods: int = 1) -> None:
        """Wait until that many pods report that the capture is open."""
        wait_for(
            f"{capture} open in {pods} pods",
            lambda: self.status(capture).get("pods", {}).get("capturing", 0) >= pods,
            90,
        )

    def wait_phase(self, capture: str, phase: str, timeout_seconds: float = 30) -> None:
        wait_for(
            f"{capture} in phase {phase}",
            lambda: self.status(capture).get("phase") == phase,
            timeout_seconds,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        items = self.kubectl.json("-n", self.name, "get", "events.v1.events.k8s.io")["items"]
        return [event for event in items if event["regarding"]["name"] == name]

    def event(self, name: str, word: str) -> dict[str, Any]:
        """Wait for an Event on `name` whose note holds `word`."""
        return wait_for(
            f"an Event on {name} with {word!r}",
            lambda: next((e for e in self.events(name) if word in e.get("note", "")), None),
            30,
        )

    # Files.

    def person(self, name: str, *roles: str) -> str:
        """A service account with these cluster roles here; returns its token."""
        self.run("create", "serviceaccount", name)
        for role in roles:
            self.run(
                "create", "rolebinding", f"{name}-{role}",
                f"--clusterrole={role}", f"--serviceaccount={self.name}:{name}",
            )  # fmt: skip
        return self.kubectl.token(self.name, name)

    def zip(self, retrieval: Retrieval, capture: str, token: str | None) -> Answer:
        return retrieval.get(
            f"/v1/namespaces/{self.name}/packetcaptures/{capture}/files.zip", token
        )

    def files(self, retrieval: Retrieval, capture: str, token: str) -> list[CaptureFile]:
        answer = self.zip(retrieval, capture, token)
        assert answer.status in (200, 204), (answer.status, answer.body)
        return open_zip(answer.body) if answer.status == 200 else []

    def payloads(self, capture: str, token: str, count: int) -> list[str]:
        """What the packets of a capture say, once there are so many.

        Retrieval may just be coming back: it is reached anew each time.
        """

        def found() -> list[str] | None:
            with contextlib.suppress(OSError, ssl.SSLError, subprocess.SubprocessError):
                with reach_retrieval(self.kubectl) as retrieval:
                    files = self.files(retrieval, capture, token)
                got = [bytes(packet["UDP"].payload).decode() for f in files for packet in f.packets]
                return got if len(got) >= count else None
            return None

        return wait_for(f"{count} packets", found, 90)

    def refused(self, *arguments: str, stdin: str | None = None, user: str | None = None) -> str:
        """Run what must be refused; returns what the API server says."""
        try:
            said = self.run(*arguments, stdin=stdin, user=user)
        except KubectlError as error:
            return str(error)
        raise AssertionError(f"kubectl {' '.join(arguments)} was not refused: {said}")
