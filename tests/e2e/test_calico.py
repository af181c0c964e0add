"""Calico's walk-through (`seed/`), word for word, on the real cluster.

What differs is said in `seed/README.md`: the token comes from `kubectl create token`, and the
port is forwarded by whoever may do that in `tigera-manager`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNSQR

from demo import installation
from demo.evidence import CaptureFile, open_zip, tshark_count
from demo.kubectl import Kubectl, KubectlError, wait_for
from demo.stage import Stage
from tests.e2e.shop import INJECTED, Shop

SEED = Path(__file__).parent / "seed"
CAPTURES = "packetcaptures.projectcalico.org"
NAMESPACES = ("storefront", "sample")
DNS = "pc-storefront-logging-dns"


@dataclass(frozen=True, slots=True)
class Calico:
    """The overlay on a cluster, and the article's people."""

    stage: Stage
    folder: Path

    def shop(self, namespace: str) -> Shop:
        return Shop(self.stage, namespace)

    def bash(self, script: str, kubectl: Kubectl | None = None) -> subprocess.CompletedProcess[str]:
        """Run what is printed, with `kubectl` on the PATH."""
        return subprocess.run(
            ["bash", "-c", script],
            env=self.environment(kubectl or self.stage.kubectl),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def environment(self, kubectl: Kubectl) -> dict[str, str]:
        path = f"{Path(kubectl.binary).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(kubectl.kubeconfig)}

    def person(self, namespace: str, account: str) -> Kubectl:
        """kubectl of a service account, with its own token and nothing else."""
        admin = self.stage.kubectl
        config = admin.json("config", "view", "--raw", "--minify")
        user = {"name": account, "user": {"token": admin.token(namespace, account)}}
        config["users"] = [user]
        config["contexts"][0]["context"]["user"] = account
        file = self.folder / f"{account}.kubeconfig"
        file.write_text(json.dumps(config))
        return Kubectl(admin.binary, file)

    def object(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.kubectl.json("-n", namespace, "get", CAPTURES, name)
        return found

    def status(self, namespace: str, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.object(namespace, name).get("status", {})
        return status

    def wait_open(self, namespace: str, name: str, pods: int) -> None:
        wait_for(
            f"{name} open in {pods} pods",
            lambda: self.status(namespace, name).get("pods", {}).get("capturing", 0) >= pods,
            60,
        )

    def download(self, namespace: str, name: str, account: str = "devops-sa") -> Download:
        """`06-download.sh` from its second command on, its places filled in."""
        script = (SEED / "06-download.sh").read_text()
        script = re.sub(r"^kubectl port-forward.*\n", "", script, flags=re.M)
        for variable, value in (
            ("NS", namespace),
            ("NAME", name),
            ("TOKEN", f"$(kubectl create token {account} -n {namespace})"),
        ):
            script, count = re.subn(
                rf"^{variable}=.*$", lambda _, v=variable, x=value: f"{v}={x}", script, flags=re.M
            )
            assert count == 1, variable
        zipped = self.folder / "files.zip"
        zipped.unlink(missing_ok=True)
        done = self.bash(script)
        statuses = re.findall(r"^< HTTP/[\d.]+ (\d+)", done.stderr, flags=re.M)
        assert statuses, done.stderr
        return Download(int(statuses[-1]), zipped.read_bytes() if zipped.exists() else b"")

    def files(self, namespace: str, name: str, account: str = "devops-sa") -> list[CaptureFile]:
        answer = self.download(namespace, name, account)
        return open_zip(answer.body) if answer.status == 200 else []


@dataclass(frozen=True, slots=True)
class Download:
    """What curl was answered."""

    status: int
    body: bytes


@pytest.fixture
def calico(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calico]:
    """The overlay, for as long as the test runs; the article's namespaces, opted in."""
    # kubectl remembers for hours which groups there are; nobody else should remember this.
    monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
    kubectl = stage.kubectl

    def render(*, calico: bool) -> str:
        return installation.render(
            kubectl,
            control_image=stage.images.control,
            sidecar_image=stage.images.sidecar,
            local_store=stage.disposable is not None,
            calico=calico,
        )

    for namespace in NAMESPACES:
        kubectl.delete("namespace", namespace)
    try:
        installation.install(kubectl, render(calico=True), lambda _: None)
        kubectl.run("wait", "--for=condition=Established", f"crd/{CAPTURES}", "--timeout=30s")
        for namespace in NAMESPACES:
            kubectl.run("create", "namespace", namespace)
            kubectl.run("label", "namespace", namespace, "nightcap.dev/inject=enabled")
            kubectl.run("-n", namespace, "create", "serviceaccount", "devops-sa")
            wait_for(
                "the default service account",
                lambda name=namespace: kubectl.json("-n", name, "get", "sa", "default"),
                30,
            )
        yield Calico(stage, tmp_path)
    finally:
        for namespace in NAMESPACES:
            kubectl.delete("namespace", namespace, "--wait=false")
        kubectl.delete("crd", CAPTURES)
        kubectl.delete("namespace", "tigera-manager", "--wait=false")
        kubectl.apply(render(calico=False))


@contextlib.contextmanager
def printed_port_forward(calico: Calico) -> Iterator[None]:
    """The first command of `06-download.sh`, until the port is there and then to the end."""
    (line,) = re.findall(
        r"^(kubectl port-forward.*?)\s*&$", (SEED / "06-download.sh").read_text(), flags=re.M
    )
    with subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        env=calico.environment(calico.stage.kubectl),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            wait_for("port 9443", lambda: _answers(9443), 30)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True


def asked_names(files: list[CaptureFile]) -> dict[str, set[str]]:
    """Pod -> names that it asked DNS for, without what its search list adds."""
    found: dict[str, set[str]] = {}
    for file in files:
        names = found.setdefault(file.pod, set())
        for packet in file.packets:
            if DNSQR in packet:
                names.add(packet[DNSQR].qname.decode().partition(".")[0])
    return found


def look_up(shop: Shop, pod: str, name: str) -> None:
    shop.python(
        pod,
        "import socket,contextlib\n"
        "with contextlib.suppress(OSError):\n"
        f"  socket.getaddrinfo({name!r}, 80)",
    )


def test_the_walk_through_works_as_printed(calico: Calico) -> None:
    storefront, sample = calico.shop("storefront"), calico.shop("sample")
    admin, devops = calico.stage.kubectl, calico.person("storefront", "devops-sa")
    storefront.start(
        storefront.pod("logging-1", labels={"app": "logging"}),
        storefront.pod("checkout", labels={"app": "checkout"}),
    )

    # 1. The right to capture, and not to read files.
    with pytest.raises(KubectlError, match="forbidden"):
        devops.run("apply", "-f", str(SEED / "03-capture-storefront-dns.yaml"))
    admin.run("apply", "-f", str(SEED / "04-rbac-capture.yaml"))

    # 2. The capture, as devops-sa. New pods are covered as they appear.
    wait_for(
        "the right of devops-sa",
        lambda: devops.run("apply", "-f", str(SEED / "03-capture-storefront-dns.yaml")),
    )
    calico.wait_open("storefront", DNS, 1)
    look_up(storefront, "logging-1", "first-of-old")
    storefront.start(storefront.pod("logging-2", labels={"app": "logging"}))
    look_up(storefront, "logging-2", "first-of-new")
    look_up(storefront, "checkout", "not-asked-for")
    calico.wait_open("storefront", DNS, 2)
    status = wait_for(
        "both pods' files in status",
        lambda: _with_files_of(calico.status("storefront", DNS), {"logging-1", "logging-2"}),
        60,
    )
    assert status["phase"] == "Capturing"
    assert "endTime" not in status
    nodes = {storefront.get("pod", name)["spec"]["nodeName"] for name in ("logging-1", "logging-2")}
    assert {entry["node"] for entry in status["files"]} == nodes
    for entry in status["files"]:
        assert entry["directory"] == f"storefront/{DNS}"
        assert entry["state"] == "Capturing"
        assert entry["fileNames"] == sorted(entry["fileNames"])
        assert all(re.fullmatch(r"logging-\d_eth0-\d+\.pcap", n) for n in entry["fileNames"])

    with printed_port_forward(calico):
        # 3. Without rights to files: 403.
        refused = calico.download("storefront", DNS)
        assert refused.status == 403
        assert b"not authorized to get packetcaptures/files" in refused.body

        # 4. The right, and the same download.
        granted = calico.bash((SEED / "05-rbac-files.sh").read_text())
        assert granted.returncode == 0, granted.stderr
        names = wait_for("both pods' lookups in files.zip", lambda: _lookups(calico), 60, 1)
        assert "not-asked-for" not in set().union(*names.values())
        for file in calico.files("storefront", DNS):
            assert tshark_count(file.data) == len(file.packets) > 0

        # 5. Deleting the capture stops it, and takes its files.
        stopped = calico.bash((SEED / "07-stop.sh").read_text(), devops)
        assert stopped.returncode == 0, stopped.stderr
        wait_for("orders gone", lambda: storefront.orders("logging-1") is None, 30)
        assert calico.download("storefront", DNS).status == 404
        assert INJECTED in storefront.annotations("logging-1")

        # The article's other two captures; what they may never see is the other namespace.
        others(calico, sample)


def _with_files_of(status: dict[str, Any], pods: set[str]) -> dict[str, Any] | None:
    names = [name for entry in status.get("files", []) for name in entry["fileNames"]]
    states = {entry["state"] for entry in status.get("files", [])}
    seen = {name.partition("_")[0] for name in names}
    return status if pods <= seen and states == {"Capturing"} else None


def _lookups(calico: Calico) -> dict[str, set[str]] | None:
    names = asked_names(calico.files("storefront", DNS))
    is_all = "first-of-old" in names.get("logging-1", ()) and "first-of-new" in names.get(
        "logging-2", ()
    )
    return names if is_all else None


def others(calico: Calico, sample: Shop) -> None:
    """`01` and `02`: one label and `all()`; how they are ended, and their files deleted."""
    admin = calico.stage.kubectl
    sample.start(
        sample.pod("nginx", labels={"k8s-app": "nginx"}), sample.pod("other", labels={"app": "x"})
    )
    for name in ("01-capture-nginx.yaml", "02-capture-all.yaml"):
        admin.run("apply", "-f", str(SEED / name))
    calico.wait_open("sample", "sample-capture-nginx", 1)
    calico.wait_open("sample", "sample-capture-all", 2)
    sample.send_udp("nginx", "192.0.2.1", 7000, ["a", "b"])
    sample.send_udp("other", "192.0.2.1", 7000, ["c"])
    for verb in ("get", "delete"):
        sample.run("create", "role", verb, f"--verb={verb}", f"--resource={CAPTURES}/files")
    sample.run("create", "rolebinding", "get", "--role=get", "--serviceaccount=sample:devops-sa")
    seen = wait_for(
        "packets of both captures",
        lambda: _pods_if(calico, "sample-capture-all", {"nginx", "other"}),
        60,
        1,
    )
    assert seen == {"nginx", "other"}
    assert _pods_if(calico, "sample-capture-nginx", {"nginx"}) == {"nginx"}

    # A selector that is none is refused with a caret under the place.
    wrong = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "PacketCapture",
        "metadata": {"name": "wrong"},
        "spec": {"selector": 'app = "x"'},
    }
    assert 'expected "=="' in sample.refused("create", "-f", "-", stdin=json.dumps(wrong))

    # Files go when every node has finished, and whoever deletes them may.
    path = "https://localhost:9443/packet-capture/files/sample/sample-capture-all"
    assert _delete(calico, path).startswith("403")
    sample.run("create", "rolebinding", "del", "--role=delete", "--serviceaccount=sample:devops-sa")
    wait_for("the right to delete", lambda: "not Finished" in _delete(calico, path), 30, 1)
    past = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1))
    sample.run(
        "patch", CAPTURES, "sample-capture-all", "--type=merge",
        "-p", json.dumps({"spec": {"endTime": past}}),
    )  # fmt: skip
    wait_for(
        "the end", lambda: calico.status("sample", "sample-capture-all")["phase"] == "Finished", 30
    )
    states = {entry["state"] for entry in calico.status("sample", "sample-capture-all")["files"]}
    assert states == {"Finished"}
    assert wait_for("the kept files", lambda: calico.files("sample", "sample-capture-all"), 30)
    assert _delete(calico, path).startswith("200")
    assert calico.download("sample", "sample-capture-all").status == 204
    wait_for(
        "no names in status",
        lambda: (
            not any(
                entry["fileNames"]
                for entry in calico.status("sample", "sample-capture-all")["files"]
            )
        ),
        60,
        1,
    )


def _pods_if(calico: Calico, capture: str, wanted: set[str]) -> set[str] | None:
    pods = {file.pod for file in calico.files("sample", capture)}
    return pods if wanted <= pods else None


def _delete(calico: Calico, url: str) -> str:
    """Status and body of a DELETE."""
    token = calico.stage.kubectl.token("sample", "devops-sa")
    done = calico.bash(
        f"curl -sk -X DELETE -H 'Authorization: Bearer {token}' -w '\\n%{{http_code}}' {url}"
    )
    body, _, status = done.stdout.rpartition("\n")
    return f"{status} {body}"
