"""`kubectl nightcap` as people use it: installed from its wheel, called by the real kubectl."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import rdpcap

from demo.kubectl import wait_for
from demo.stage import Stage
from tests.e2e.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
PACKETS = ["one", "two", "three"]


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Cli:
    """The plugin, and the kubeconfig of whoever calls it."""

    kubectl: str
    folder: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, cwd: Path | None = None) -> Said:
        return self.run("nightcap", *arguments, cwd=cwd)

    def run(self, *arguments: str, cwd: Path | None = None) -> Said:
        done = subprocess.run(
            [self.kubectl, *arguments],
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(self.folder),
                "KUBECONFIG": str(self.kubeconfig),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd or self.folder,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, cwd: Path | None = None) -> str:
        said = self(*arguments, cwd=cwd)
        assert said.code == 0, (arguments, said)
        return said.out


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install` of the wheel puts there."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    install = [
        str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-deps",
        "--python", sys.executable, "--target", str(folder), str(wheel),
    ]  # fmt: skip
    subprocess.run(install, check=True, capture_output=True)
    return folder


@pytest.fixture
def admin(stage: Stage, installed: Path) -> Cli:
    """The cluster's administrator, who logs in with a client certificate."""
    assert stage.kubectl.kubeconfig is not None
    return Cli(stage.kubectl.binary, installed, stage.kubectl.kubeconfig)


def someone(shop: Shop, admin: Cli, name: str, folder: Path, *roles: str) -> Cli:
    """A service account with these roles, as a kubeconfig with a token."""
    token = shop.person(name, *roles)
    config = json.loads(admin.run("config", "view", "--raw", "--minify", "-o", "json").out)
    config["users"] = [{"name": name, "user": {"token": token}}]
    (context,) = config["contexts"]
    context["context"] |= {"user": name, "namespace": shop.name}
    file = folder / f"{name}.kubeconfig"
    file.write_text(json.dumps(config))
    return Cli(admin.kubectl, admin.folder, file)


@pytest.fixture
def reach(shop: Shop) -> Iterator[None]:
    """The way to retrieval for every service account of the shop."""
    system = ("-n", "nightcap-system")
    shop.kubectl.run(
        *system, "create", "rolebinding", shop.name, "--role=nightcap-reach",
        f"--group=system:serviceaccounts:{shop.name}",
    )  # fmt: skip
    yield
    shop.kubectl.run(*system, "delete", "rolebinding", shop.name)


def a_deployment(shop: Shop, name: str) -> dict[str, Any]:
    pod = shop.pod(name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod["spec"]},
        },
    }


def payloads(pcap: Path | io.BytesIO) -> list[str]:
    source = str(pcap) if isinstance(pcap, Path) else pcap
    return [bytes(packet["UDP"].payload).decode() for packet in rdpcap(source)]


@pytest.mark.usefixtures("reach")
def test_developer_starts_sees_fetches_stops_and_removes(
    shop: Shop, admin: Cli, tmp_path: Path
) -> None:
    roles = ("view", "nightcap-capture", "nightcap-files")
    developer = someone(shop, admin, "developer", tmp_path, *roles)
    shop.create(a_deployment(shop, "web"))
    shop.kubectl.rolled_out(shop.name, "web")
    started = developer.ok("start", "deployment/web", "-f", "udp port 7000", "--name", "dns")
    assert started == "packetcapture.nightcap.dev/dns created\n"
    shop.wait_open("dns")
    assert "no packet has matched yet (udp port 7000)" in developer.ok("status", "dns")
    empty = developer("get", "dns")
    assert (empty.code, empty.out) == (1, "")
    assert "dns has no files yet" in empty.err

    pod = shop.run("get", "pods", "-l", "app=web", "-o", "name").strip().removeprefix("pod/")
    shop.send_udp(pod, "192.0.2.1", 7000, PACKETS)
    wait_for("three packets", lambda: shop.status("dns").get("packets") == 3, 30)
    assert "it captures in 1 pod: 3 packets" in developer.ok("status", "dns")
    row = developer.ok("list").splitlines()[1].split()
    assert row[:5] == ["dns", "Capturing", "1", "1", "3"]

    assert "1 file, 3 packets" in developer.ok("get", "dns", cwd=tmp_path)
    (file,) = (tmp_path / "dns").iterdir()
    assert file.name.startswith(f"{pod}_eth0-")
    assert payloads(file) == PACKETS
    developer.ok("get", "dns", "--pod", pod, "-o", "one.pcap", cwd=tmp_path)
    assert payloads(tmp_path / "one.pcap") == PACKETS
    assert {path.name for path in tmp_path.iterdir()} == {
        "dns", "one.pcap", "developer.kubeconfig",
    }  # fmt: skip

    assert developer.ok("stop", "dns") == "packetcapture.nightcap.dev/dns stopped; its files stay\n"
    shop.wait_phase("dns", "Finished")
    assert "it is over: 3 packets" in developer.ok("status", "dns")
    unasked = developer("rm", "dns")
    assert unasked.code == 1
    assert "deletes its files" in unasked.err
    developer.ok("rm", "dns", "-y")
    assert "not found" in developer("status", "dns").err


def test_missing_rights_are_named_one_by_one(shop: Shop, admin: Cli, tmp_path: Path) -> None:
    shop.create(shop.capture("dns"))
    nobody = someone(shop, admin, "nobody", tmp_path)
    assert "nightcap-reach" in nobody("get", "dns").err
    assert "nightcap-capture" in nobody("start", "--all").err
    doctor = nobody("doctor")
    assert "--role=nightcap-reach" in doctor.out
    assert "--clusterrole=nightcap-capture" in doctor.out
    assert "--clusterrole=nightcap-files" in doctor.out


@pytest.mark.usefixtures("reach")
def test_the_way_is_not_the_right_to_files(shop: Shop, admin: Cli, tmp_path: Path) -> None:
    shop.create(shop.capture("dns"))
    starter = someone(shop, admin, "starter", tmp_path, "nightcap-capture")
    refused = starter("get", "dns")
    assert refused.code == 1
    assert "starter is not authorized to get packetcaptures/files" in refused.err
    assert f"nightcap-files in namespace {shop.name}" in refused.err
    # Another service, or another path than the proxy's, is not reached by that role.
    base = "/api/v1/namespaces/nightcap-system/services"
    assert "forbidden" in starter.run("get", "--raw", f"{base}/nightcap-retrieval").err
    other = f"{base}/https:nightcap-webhook:443/proxy/healthz"
    assert "forbidden" in starter.run("get", "--raw", other).err


def test_client_certificate_borrows_a_service_account(
    shop: Shop, admin: Cli, tmp_path: Path
) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("dns", filter="udp port 7000"))
    shop.wait_open("dns")
    shop.send_udp("web", "192.0.2.1", 7000, PACKETS)
    wait_for("three packets", lambda: shop.status("dns").get("packets") == 3, 30)
    shop.person("analyst", "nightcap-files")
    asked = ("get", "dns", "-n", shop.name)
    assert "--as-service-account" in admin(*asked).err
    admin.ok(*asked, "--as-service-account", "analyst", "-d", str(tmp_path))
    (file,) = tmp_path.iterdir()
    assert payloads(file) == PACKETS
    unknown = admin(*asked, "--as-service-account", "nix")
    assert f"service account 'nix' does not exist in namespace {shop.name}" in unknown.err


def test_status_says_why_nothing_is_captured(shop: Shop, admin: Cli) -> None:
    here = ("-n", shop.name)
    admin.ok("disable", shop.name)
    shop.start(shop.pod("bare"))
    started = admin("start", "pod/bare", "--name", "all", *here)
    assert f"First: kubectl nightcap enable {shop.name}" in started.err
    wait_for("its condition", lambda: shop.condition("all", "PodsCovered"), 30)
    said = admin.ok("status", "all", *here)
    assert "1 of 1 pods have no sidecar; bare: the namespace has not opted in" in said
    enabled = admin("enable", shop.name)
    assert "bare" in enabled.err
    assert f"kubectl -n {shop.name} delete pod bare" in enabled.err
    bad = admin("start", "--all", "-f", "udp port (", *here)
    assert bad.code == 1
    assert "can't parse filter expression: syntax error" in bad.err
    assert admin("start", "-l", "a=b", "--dry-run=server", *here).code == 0
    assert admin.ok("list", "-o", "name", *here) == "packetcapture.nightcap.dev/all\n"


def test_kubectl_completes_names(shop: Shop, admin: Cli) -> None:
    shop.create(shop.capture("dns"), shop.capture("all"))
    done = admin.run("__complete", "nightcap", "stop", "-n", shop.name, "")
    assert done.out.splitlines()[:3] == ["all", "dns", ":4"], done
    assert "status\t" in admin.run("__complete", "nightcap", "sta").out


@pytest.mark.alone
def test_doctor_names_what_is_broken(shop: Shop, admin: Cli, stage: Stage) -> None:
    well = admin("doctor", "-n", shop.name)
    assert well.code == 0, well
    assert "fault" not in well.out
    assert f"namespace {shop.name}: a new pod gets its sidecar" in well.out
    kubectl, system = stage.kubectl, ("-n", "nightcap-system")
    kind = "validatingadmissionpolicybinding"
    binding = kubectl.json("get", kind, "nightcap-orders")
    for field in ("uid", "resourceVersion"):
        del binding["metadata"][field]
    try:
        kubectl.delete(kind, "nightcap-orders")
        kubectl.run(*system, "scale", "deployment/nightcap-webhook", "--replicas=0")
        kubectl.run(*system, "scale", "deployment/nightcap-retrieval", "--replicas=0")
        for name in ("nightcap-webhook", "nightcap-retrieval"):
            kubectl.run(
                *system, "wait", "pod", "--for=delete", "--timeout=90s",
                "-l", f"app.kubernetes.io/name={name}",
            )  # fmt: skip
        ill = wait_for("what doctor says", lambda: _with_faults(admin("doctor", "-n", shop.name)))
    finally:
        kubectl.run(*system, "scale", "deployment/nightcap-webhook", "--replicas=2")
        kubectl.run(*system, "scale", "deployment/nightcap-retrieval", "--replicas=1")
        kubectl.apply(json.dumps(binding))
        for name in ("nightcap-webhook", "nightcap-retrieval"):
            kubectl.rolled_out("nightcap-system", name)
    assert ill.code == 1
    faults = [line for line in ill.out.splitlines() if line.startswith("fault")]
    for words in (
        "deployment nightcap-webhook is scaled to 0",
        "deployment nightcap-retrieval is scaled to 0",
        "service nightcap-webhook has no ready endpoint",
        "service nightcap-collector has no ready endpoint",
        "policy nightcap-orders is not bound",
        "the webhook was not asked",
        "retrieval is not reached through the API server",
        f"namespace {shop.name} is enabled, but a new pod gets no sidecar",
    ):
        assert any(words in line for line in faults), (words, ill.out)


def _with_faults(said: Said) -> Said | None:
    return said if "was not asked" in said.out else None
