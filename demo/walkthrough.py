"""The walk-through, step by step: from one label to one authorized file.

Everything is done with kubectl and HTTPS, as a person would; each promise is checked by
looking, and by tools that are not ours.
"""

import re
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from demo.evidence import (
    CaptureFile,
    index_of_first_query,
    index_of_syn,
    is_first_of_its_sender,
    open_zip,
    tshark_count,
)
from demo.files import Answer, Retrieval, reach_retrieval
from demo.kubectl import Kubectl, wait_for
from demo.narrator import Narrator
from demo.stage import Stage

SHOP = "nightcap-demo"
SIDECAR = "nightcap"
BY_LABEL = "frontend-requests"

_PEOPLE = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: developer, namespace: {SHOP}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: analyst, namespace: {SHOP}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: developer-may-capture, namespace: {SHOP}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nightcap-capture}}
subjects: [{{kind: ServiceAccount, name: developer, namespace: {SHOP}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: analyst-may-read-files, namespace: {SHOP}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nightcap-files}}
subjects: [{{kind: ServiceAccount, name: analyst, namespace: {SHOP}}}]
"""

_CAPTURE = f"""
apiVersion: nightcap.dev/v1alpha1
kind: PacketCapture
metadata: {{name: {BY_LABEL}, namespace: {SHOP}}}
spec:
  selector: {{matchLabels: {{app: frontend}}}}
  filter: udp port 53 or tcp port 8080
  duration: 10m
"""


@dataclass
class WalkThrough:
    """The stage, and what the steps have found out so far."""

    stage: Stage
    tell: Narrator
    newcomers: list[str] = field(default_factory=list)
    annotated_pod: str = ""
    annotation_capture: str = ""

    @property
    def kubectl(self) -> Kubectl:
        return self.stage.kubectl

    def run(self) -> bool:
        """Walk all of it; true when every promise was kept."""
        self.open_the_shop()
        self.look_at_dormant_pods()
        self.capture_by_annotation()
        self.capture_by_label()
        self.scale_up()
        with reach_retrieval(self.kubectl) as retrieval:
            self.check_first_packets(retrieval)
            self.lose_a_pod(retrieval)
            self.fetch_with_the_right(retrieval)
            self.fetch_without_the_right(retrieval)
            self.switch_off(retrieval)
            self.list_files(retrieval)
        return self.tell.end()

    def close(self) -> None:
        """Take the application away again; Nightcap stays."""
        self.kubectl.delete("namespace", SHOP)

    # The steps, in their order.

    def open_the_shop(self) -> None:
        self.tell.step(
            "A namespace opts in",
            "One label, by the namespace's owner. From now on the API server shows each new pod "
            "to the webhook.",
        )
        self.kubectl.delete("namespace", SHOP)
        self.tell.command(f"kubectl create namespace {SHOP}")
        self.tell.command(f"kubectl label namespace {SHOP} nightcap.dev/inject=enabled")
        self.kubectl.run("create", "namespace", SHOP)
        self.kubectl.run("label", "namespace", SHOP, "nightcap.dev/inject=enabled")
        # The webhook learns of the label by its own watch; a pod that comes first is not injected.
        self.kubectl.apply(_PEOPLE)
        manifest = (Path(__file__).parent / "application.yaml").read_text()
        self.kubectl.apply(manifest.replace("IMAGE", self.stage.images.app), "-n", SHOP)
        for deployment in ("catalog", "frontend"):
            self.kubectl.rolled_out(SHOP, deployment)
        self.tell.say(self.kubectl.run("-n", SHOP, "get", "pods", "-o", "wide"))

    def look_at_dormant_pods(self) -> None:
        self.tell.step(
            "Every pod has its sidecar, asleep",
            "A native sidecar, first in line: no orders, no process but one that waits.",
        )
        for pod in self._pods():
            name = pod["metadata"]["name"]
            first = (pod["spec"].get("initContainers") or [{}])[0]
            self.tell.promise(
                f"{name} has the sidecar as its first container",
                first.get("name") == SIDECAR and first.get("restartPolicy") == "Always",
            )
            annotations = pod["metadata"].get("annotations", {})
            self.tell.promise(
                f"{name} is dormant", not annotations.get("nightcap.dev/orders"), "no orders"
            )

    def capture_by_annotation(self) -> None:
        self.annotated_pod = self._pods("catalog")[0]["metadata"]["name"]
        self.tell.step(
            "An annotation on one pod starts a capture",
            "Nothing else is needed. It becomes a PacketCapture of its own, with status and end.",
        )
        self._annotate("on")
        capture = wait_for("a capture for the annotation", self._annotation_capture, 30)
        self.annotation_capture = capture["metadata"]["name"]
        self._wait_for_packets(self.annotation_capture)
        self._show_captures()
        self.tell.promise("the annotated pod is recorded", True, self.annotation_capture)

    def capture_by_label(self) -> None:
        self.tell.step(
            "A PacketCapture with a filter, for a label",
            "Written by a developer who may capture here, and may not read files.",
        )
        self.tell.say(_CAPTURE)
        developer = Kubectl(
            self.kubectl.binary,
            self.kubectl.kubeconfig,
            user=f"system:serviceaccount:{SHOP}:developer",
        )
        developer.apply(_CAPTURE)
        self._wait_for_packets(BY_LABEL)
        self._show_captures()
        self.tell.promise("the labelled pods are recorded", True, BY_LABEL)

    def scale_up(self) -> None:
        before = {pod["metadata"]["name"] for pod in self._pods("frontend")}
        self.tell.step(
            "The deployment is scaled up while the capture runs",
            "New pods are born with their orders: they record from their first packet.",
        )
        self.tell.command("kubectl scale deployment frontend --replicas=3")
        self.kubectl.run("-n", SHOP, "scale", "deployment", "frontend", "--replicas=3")
        self.kubectl.rolled_out(SHOP, "frontend")
        after = {pod["metadata"]["name"] for pod in self._pods("frontend")}
        self.newcomers = sorted(after - before)
        self.tell.promise("two pods were born", len(self.newcomers) == 2, str(self.newcomers))
        for pod in self.newcomers:
            wait_for(f"requests of {pod}", partial(self._has_asked, pod, 3), 60)

    def check_first_packets(self, retrieval: Retrieval) -> None:
        self.tell.step(
            "Their very first packets are in their files",
            "The application says which port its first request left from; its file must hold "
            "the DNS question before it, and that SYN.",
        )
        for pod in self.newcomers:
            first_port = self._requests(pod)[0]
            wait_for(
                f"the first request of {pod} in its file",
                partial(self._has_syn, retrieval, pod, first_port),
                30,
            )
            packets = self._packets_of(self._files(retrieval, BY_LABEL), pod)
            query = index_of_first_query(packets, "catalog")
            syn = index_of_syn(packets, first_port)
            kept = query is not None and syn is not None and query < syn
            self.tell.promise(
                f"{pod}: first DNS query and first SYN are recorded",
                kept,
                f"packet {query} asks for catalog, packet {syn} is the SYN from port {first_port}",
            )
            self.tell.promise(
                f"{pod}: the query is the first packet that it sent",
                query is not None and is_first_of_its_sender(packets, query),
                "; ".join(packet.summary() for packet in packets[: query or 0]),
            )

    def lose_a_pod(self, retrieval: Retrieval) -> None:
        victim = self.newcomers[0]
        self.tell.step(
            "A recorded pod is deleted", "Autoscalers do that. Its files were shipped as they grew."
        )
        before = len(self._packets_of(self._files(retrieval, BY_LABEL), victim))
        self.tell.command(f"kubectl delete pod {victim}")
        self.kubectl.run("-n", SHOP, "delete", "pod", victim)
        gone = not any(pod["metadata"]["name"] == victim for pod in self._pods("frontend"))
        after = len(self._packets_of(self._files(retrieval, BY_LABEL), victim))
        self.tell.promise(f"{victim} is gone", gone)
        self.tell.promise("its file is still there", after >= before > 0, f"{after} packets")

    def fetch_with_the_right(self, retrieval: Retrieval) -> None:
        self.tell.step(
            "The person with the right to files fetches them",
            "By her own Kubernetes token; retrieval asks the API server who she is and what she "
            "may do.",
        )
        for name in (self.annotation_capture, BY_LABEL):
            answer = self._fetch(retrieval, name, "analyst")
            self.tell.promise(f"{name}: files.zip is answered", answer.status == 200)
            length = answer.headers.get("Content-Length")
            self.tell.promise("its length was told beforehand", length == str(len(answer.body)))
            for file in open_zip(answer.body):
                theirs = tshark_count(file.data)
                tshark = "tshark is not installed" if theirs is None else f"tshark {theirs}"
                self.tell.promise(
                    f"{file.name} opens",
                    len(file.packets) > 0 and theirs in (None, len(file.packets)),
                    f"scapy reads {len(file.packets)} packets, {tshark}",
                )

    def fetch_without_the_right(self, retrieval: Retrieval) -> None:
        self.tell.step(
            "The person without it gets 403",
            "The developer may start captures, not read them; whether one exists is no answer "
            "either.",
        )
        answer = self._fetch(retrieval, BY_LABEL, "developer")
        self.tell.say(f"{answer.status} {answer.body.decode(errors='replace').strip()}")
        self.tell.promise("the developer is refused", answer.status == 403, str(answer.status))
        unknown = self._fetch(retrieval, "no-such-capture", "developer")
        self.tell.promise("also where there is nothing", unknown.status == 403, str(unknown.status))
        nobody = retrieval.get(self._zip_path(BY_LABEL), None)
        self.tell.promise("without a token it is 401", nobody.status == 401, str(nobody.status))

    def switch_off(self, retrieval: Retrieval) -> None:
        self.tell.step("`off` ends it", "The application goes on; no packet of it is recorded.")
        self._annotate("off")
        wait_for(
            "the end of the annotation capture",
            lambda: self._status(self.annotation_capture).get("phase") == "Finished",
            30,
        )
        time.sleep(2)
        before = self._files(retrieval, self.annotation_capture)
        time.sleep(3)
        after = self._files(retrieval, self.annotation_capture)
        count_before = sum(len(file.packets) for file in before)
        count_after = sum(len(file.packets) for file in after)
        self.tell.promise(
            "no new packet after the end", count_before == count_after, f"{count_after} packets"
        )
        self._show_captures()

    def list_files(self, retrieval: Retrieval) -> None:
        self.tell.step("What there is", "The files, whose they are, and where they lie.")
        token = self._token("analyst")
        lines = []
        for name in (self.annotation_capture, BY_LABEL):
            path = f"/v1/namespaces/{SHOP}/packetcaptures/{name}/files"
            answer = retrieval.get(path, token)
            self.tell.promise(f"{name}: the list is answered", answer.status == 200)
            lines += [
                f"{name:22} {file['node']:8} {file['size']:>9} {file['packets']:>8}  {file['file']}"
                for file in answer.json()["files"]
            ]
        self.tell.say(f"{'CAPTURE':22} {'NODE':8} {'SIZE':>9} {'PACKETS':>8}  FILE")
        self.tell.say("\n".join(sorted(lines)))
        self.tell.say("They lie in retrieval's volume: claim nightcap-store in nightcap-system.")

    # What the steps look with.

    def _pods(self, app: str | None = None) -> list[dict[str, Any]]:
        selector = ("-l", f"app={app}") if app else ()
        pods = self.kubectl.json("-n", SHOP, "get", "pods", *selector)["items"]
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def _annotate(self, value: str) -> None:
        target = f"pod {self.annotated_pod} nightcap.dev/capture={value}"
        self.tell.command(f"kubectl annotate --overwrite {target}")
        self.kubectl.run("-n", SHOP, "annotate", "--overwrite", *target.split())

    def _annotation_capture(self) -> dict[str, Any] | None:
        captures: list[dict[str, Any]] = self.kubectl.json(
            "-n", SHOP, "get", "packetcaptures.nightcap.dev", "-l", "nightcap.dev/source"
        )["items"]
        return captures[0] if captures else None

    def _status(self, name: str) -> dict[str, Any]:
        capture = self.kubectl.json("-n", SHOP, "get", "packetcaptures.nightcap.dev", name)
        status: dict[str, Any] = capture.get("status", {})
        return status

    def _wait_for_packets(self, name: str) -> None:
        wait_for(
            f"packets in the status of {name}",
            lambda: (
                self._status(name).get("phase") == "Capturing"
                and self._status(name).get("packets", 0) > 0
            ),
            60,
        )

    def _show_captures(self) -> None:
        self.tell.command("kubectl get pcap")
        self.tell.say(self.kubectl.run("-n", SHOP, "get", "pcap"))

    def _requests(self, pod: str) -> list[int]:
        """Local ports of a frontend's requests, in their order."""
        log = self.kubectl.run("-n", SHOP, "logs", pod, "-c", "frontend")
        return [int(port) for port in re.findall(r"^n=\d+ port=(\d+) status=200", log, re.M)]

    def _has_asked(self, pod: str, times: int) -> bool:
        return len(self._requests(pod)) >= times

    def _has_syn(self, retrieval: Retrieval, pod: str, port: int) -> bool:
        packets = self._packets_of(self._files(retrieval, BY_LABEL), pod)
        return index_of_syn(packets, port) is not None

    def _token(self, person: str) -> str:
        return self.kubectl.token(SHOP, person)

    def _zip_path(self, capture: str) -> str:
        return f"/v1/namespaces/{SHOP}/packetcaptures/{capture}/files.zip"

    def _fetch(self, retrieval: Retrieval, capture: str, person: str) -> Answer:
        return retrieval.get(self._zip_path(capture), self._token(person))

    def _files(self, retrieval: Retrieval, capture: str) -> list[CaptureFile]:
        answer = self._fetch(retrieval, capture, "analyst")
        return open_zip(answer.body) if answer.status == 200 else []

    @staticmethod
    def _packets_of(files: list[CaptureFile], pod: str) -> tuple[Any, ...]:
        mine = sorted((file for file in files if file.pod == pod), key=lambda file: file.name)
        return tuple(packet for file in mine for packet in file.packets)
