"""`kubectl nightcap` as people use it, against the real cluster.

The commands run inside the test's own process, which takes no second each to start; that the wheel
installs a plugin which kubectl finds has a test of its own.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import rdpcap

from demo.kubectl import wait_for
from demo.stage import Stage
from tests.e2e.person import Person, meanwhile, person
from tests.e2e.shop import CAPTURES, Shop

ROOT = Path(__file__).resolve().parents[2]
LEVEL = "pod-security.kubernetes.io/enforce"
PACKETS = ["one", "two", "three"]


@pytest.fixture
def admin(stage: Stage) -> Person:
    """The cluster's administrator, who logs in with a client certificate."""
    assert stage.kubectl.kubeconfig is not None
    return Person(stage.kubectl.kubeconfig)


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
def test_developer_starts_sees_fetches_follows_stops_and_removes(
    shop: Shop, tmp_path: Path
) -> None:
    # The role edit has pods/exec.
    roles = ("edit", "nightcap-capture", "nightcap-files")
    developer = person(shop, "developer", tmp_path, *roles)
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
    assert developer.ok("files", "dns", "-o", "name") == f"{file.name}\n"
    developer.ok("get", "dns", "--merged", cwd=tmp_path)
    assert payloads(tmp_path / "dns.pcapng") == PACKETS
    # Out of the pod: what is still being written is there until it is whole and shipped.
    developer.ok("get", "dns", "--from-pods", "-d", "pods", cwd=tmp_path)
    assert payloads(tmp_path / "pods" / file.name) == PACKETS
    assert {path.name for path in tmp_path.iterdir()} == {
        "dns", "dns.pcapng", "one.pcap", "pods", "developer.kubeconfig",
    }  # fmt: skip

    def send_one_more_and_stop() -> None:
        try:
            wait_for("the followed packets", lambda: (tmp_path / "live").stat().st_size > 300, 30)
            shop.send_udp(pod, "192.0.2.1", 7000, ["four"])
            wait_for("the fourth", lambda: b"four" in (tmp_path / "live").read_bytes(), 30)
        finally:
            shop.run("patch", CAPTURES, "dns", "--type=merge", "-p", '{"spec":{"suspend":true}}')

    with meanwhile(send_one_more_and_stop):
        developer.ok("follow", "dns", "-w", "live", cwd=tmp_path)
    assert payloads(tmp_path / "live") == [*PACKETS, "four"]
    assert developer.ok("stop", "dns") == "packetcapture.nightcap.dev/dns stopped; its files stay\n"
    shop.wait_phase("dns", "Finished")
    wait_for("4 packets", lambda: "it is over: 4 packets" in developer.ok("status", "dns"), 30)
    unasked = developer("rm", "dns")
    assert unasked.code == 1
    assert "deletes its files" in unasked.err
    developer.ok("rm", "dns", "-y")
    assert "not found" in developer("status", "dns").err


@pytest.mark.usefixtures("reach")
def test_ctrl_c_leaves_no_capture_behind_that_was_to_go(shop: Shop, tmp_path: Path) -> None:
    developer = person(shop, "developer", tmp_path, "nightcap-capture", "nightcap-files")
    shop.start(shop.pod("web"))
    live = tmp_path / "live.pcapng"
    command = ("start", "--all", "--name", "dns", "--follow", "--rm", "-w", str(live))
    with subprocess.Popen(
        [sys.executable, "-m", "nightcap.cli", *command],
        env={**os.environ, "KUBECONFIG": str(developer.kubeconfig)},
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for("its first bytes", lambda: live.stat().st_size > 0, 60)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, ""), errors
    assert errors.splitlines() == [
        "packetcapture.nightcap.dev/dns created",
        "dns deleted, with its files",
        "",
        "interrupted",
    ]
    assert shop.run("get", CAPTURES, "-o", "name") == ""


def test_missing_rights_are_named_one_by_one(
    shop: Shop, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shop.create(shop.capture("dns"))
    nobody = person(shop, "nobody", tmp_path)
    assert "nightcap-reach" in nobody("get", "dns").err
    assert "nightcap-capture" in nobody("start", "--all").err
    assert "cannot get resource" in nobody("attach", "web").err
    doctor = nobody("doctor")
    assert "--role=nightcap-reach" in doctor.out
    assert "--clusterrole=nightcap-capture" in doctor.out
    assert "--clusterrole=nightcap-files" in doctor.out
    # The way is not the right to the files.
    request.getfixturevalue("reach")
    starter = person(shop, "starter", tmp_path, "nightcap-capture")
    refused = starter("get", "dns")
    assert refused.code == 1
    assert "starter is not authorized to get packetcaptures/files" in refused.err
    assert f"nightcap-files in namespace {shop.name}" in refused.err
    # Another service, or another path than the proxy's, is not reached by that role.
    base = "/api/v1/namespaces/nightcap-system/services"
    for path in ("nightcap-retrieval", "https:nightcap-webhook:443/proxy/healthz"):
        user = f"system:serviceaccount:{shop.name}:starter"
        assert "orbidden" in shop.refused("get", "--raw", f"{base}/{path}", user=user)


def test_client_certificate_borrows_a_service_account(
    shop: Shop, admin: Person, tmp_path: Path
) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("dns", filter="udp port 7000"))
    shop.wait_open("dns")
    shop.send_udp("web", "192.0.2.1", 7000, PACKETS)
    wait_for("three packets", lambda: shop.status("dns").get("packets") == 3, 30)
    asked = ("get", "dns", "-n", shop.name)
    assert "--clusterrole=nightcap-files" in admin(*asked).err
    shop.person("analyst", "nightcap-files")
    said = admin(*asked, "-d", str(tmp_path))
    assert said.code == 0, said
    assert "asking as service account analyst" in said.err
    (file,) = tmp_path.iterdir()
    assert payloads(file) == PACKETS
    unknown = admin(*asked, "--as-service-account", "nix")
    assert f"service account 'nix' does not exist in namespace {shop.name}" in unknown.err


def test_status_says_why_nothing_is_captured(shop: Shop, admin: Person) -> None:
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


def test_wheel_installs_a_plugin_that_kubectl_finds_and_completes(
    shop: Shop, stage: Stage, tmp_path: Path
) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [
        str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-deps",
        "--python", sys.executable, "--target", str(tmp_path), str(wheel),
    ]  # fmt: skip
    subprocess.run(install, check=True, capture_output=True)
    shop.create(shop.capture("dns"), shop.capture("all"))

    def kubectl(*arguments: str) -> list[str]:
        done = subprocess.run(
            [stage.kubectl.binary, *arguments],
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(tmp_path),
                "KUBECONFIG": str(stage.kubectl.kubeconfig),
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    assert kubectl("nightcap", "list", "-n", shop.name, "-o", "name") == [
        "packetcapture.nightcap.dev/all",
        "packetcapture.nightcap.dev/dns",
    ]
    completed = kubectl("__complete", "nightcap", "stop", "-n", shop.name, "")
    assert completed[:3] == ["all", "dns", ":4"]


def test_attach_captures_in_a_pod_that_was_never_injected(
    stage: Stage, admin: Person, tmp_path: Path
) -> None:
    shop = Shop.open(stage, "attach", {"nightcap.dev/inject": "disabled", LEVEL: "baseline"})
    try:
        shop.start(shop.pod("web"))
        developer = person(shop, "developer", tmp_path, "edit")
        refused = developer("attach", "web", "--image", stage.images.sidecar)
        assert refused.code == 1
        assert "patch on pods/ephemeralcontainers" in refused.err
        shop.run("create", "role", "attach", "--verb=patch", "--resource=pods/ephemeralcontainers")
        shop.run(
            "create", "rolebinding", "attach", "--role=attach",
            f"--serviceaccount={shop.name}:developer",
        )  # fmt: skip
        command = ("attach", "web", "--image", stage.images.sidecar, "-f", "udp port 7000")
        with subprocess.Popen(
            [sys.executable, "-m", "nightcap.cli", *command],
            env={**os.environ, "KUBECONFIG": str(developer.kubeconfig)},
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            header = process.stdout.read(24)
            shop.send_udp("web", "192.0.2.1", 7000, PACKETS)
            body = process.stdout.read(3 * (16 + 42) + len("".join(PACKETS)))
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130, process.stderr and process.stderr.read()
        assert payloads(io.BytesIO(header + body)) == PACKETS
        wait_for("the container's end", lambda: _ended(shop, "web"), 20)
        # What was captured is in no log of the node's.
        assert "one" not in shop.run("logs", "web", "-c", "nightcap-attach-1")
        # The administrator finds the image alone; another container gets another number.
        tried = admin.ok("attach", "web", "--dry-run=server", "-n", shop.name)
        assert tried == "pod/web gets container nightcap-attach-2 (server dry run)\n"
        shop.run("label", "namespace", shop.name, f"{LEVEL}=restricted", "--overwrite")
        restricted = admin("attach", "web", "-n", shop.name)
        assert restricted.code == 1
        assert "the level restricted forbids" in restricted.err
    finally:
        shop.close()


def _ended(shop: Shop, pod: str) -> bool:
    (status,) = shop.get("pod", pod)["status"]["ephemeralContainerStatuses"]
    return "terminated" in status["state"]
