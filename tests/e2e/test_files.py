"""Who may have files, and how they are handed out; who may bring segments in."""

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator

import pytest

from demo.files import Answer, Retrieval
from demo.kubectl import Kubectl, wait_for
from demo.stage import Stage
from tests.e2e.shop import Shop

PACKETS = ["one", "two", "three"]


@pytest.fixture
def recorded(shop: Shop) -> Shop:
    """A namespace with the capture `dns` of the pod `web`, three packets in it."""
    shop.start(shop.pod("web"))
    shop.create(shop.capture("dns", filter="udp port 7000"))
    shop.wait_open("dns")
    shop.send_udp("web", "192.0.2.1", 7000, PACKETS)
    wait_for("three packets", lambda: shop.status("dns").get("packets") == 3, 30)
    return shop


def test_who_may_read_what(recorded: Shop, retrieval: Retrieval) -> None:
    shop = recorded
    nobody = shop.person("nobody")
    developer = shop.person("developer", "nightcap-capture")
    analyst = shop.person("analyst", "nightcap-files")
    wrong_audience = shop.run("create", "token", "analyst", "--audience=nightcap").strip()
    base = f"/v1/namespaces/{shop.name}/packetcaptures"
    routes = [
        "{name}/files", "{name}/files.zip", "{name}/files/web_eth0-1.pcap",
    ]  # fmt: skip
    calico = ["/packet-capture/download/{ns}/{name}/files.zip", "/download/{ns}/{name}/files.zip"]
    paths = [f"{base}/{route}" for route in routes] + calico
    for path in paths:
        there = path.format(ns=shop.name, name="dns")
        nowhere = path.format(ns=shop.name, name="no-such-capture")
        assert retrieval.get(there, None).status == 401
        assert retrieval.get(there, "no.such.token").status == 401
        assert retrieval.get(there, wrong_audience).status == 401
        for token in (nobody, developer):
            # Not by text or status can they tell whether the capture exists.
            refused, unknown = retrieval.get(there, token), retrieval.get(nowhere, token)
            assert (refused.status, unknown.status) == (403, 403)
            assert refused.body.replace(b"dns", b"") == unknown.body.replace(
                b"no-such-capture", b""
            )
        assert retrieval.get(nowhere, analyst).status == 404
    for path in (f"{base}/dns/files", f"{base}/dns/files.zip"):
        assert retrieval.get(path, analyst).status == 200
    other = Shop.open(shop.stage, "other")
    try:
        stranger = other.person("stranger", "nightcap-files")
        assert retrieval.get(f"{base}/dns/files.zip", stranger).status == 403
    finally:
        other.close()


def test_file_can_be_had_in_parts_and_names_are_never_paths(
    recorded: Shop, retrieval: Retrieval
) -> None:
    shop = recorded
    token = shop.person("analyst", "nightcap-files")
    base = f"/v1/namespaces/{shop.name}/packetcaptures/dns/files"
    (file,) = retrieval.get(base, token).json()["files"]
    assert file["pod"] == "web"
    assert file["packets"] == 3
    whole = retrieval.get(f"{base}/{file['file']}", token)
    assert whole.status == 200
    part = retrieval.get(f"{base}/{file['file']}", token, Range="bytes=24-39")
    assert part.status == 206
    assert part.body == whole.body[24:40]
    for attack in ("..%2f..%2fmeta.json", "../meta.json", "%2e%2e", "web_eth0-1.pcap%00", "a/b"):
        assert retrieval.get(f"{base}/{attack}", token).status in (400, 404)


@contextlib.contextmanager
def collector(stage: Stage) -> Iterator["Collector"]:
    with stage.kubectl.port_forward("nightcap-system", "service/nightcap-collector", 20443) as port:
        yield Collector(stage.kubectl, port)


class Collector:
    """The collector as a sidecar sees it."""

    def __init__(self, kubectl: Kubectl, port: int) -> None:
        bundle = kubectl.json("-n", "nightcap-system", "get", "configmap", "nightcap-ca")
        self._context = ssl.create_default_context(cadata=bundle["data"]["ca.crt"])
        self._port = port

    def ask(self, method: str, path: str, token: str, body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30)
        connection.sock = self._context.wrap_socket(
            _connect(self._port), server_hostname="nightcap-collector.nightcap-system.svc"
        )
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Authorization": f"Bearer {token}", **sent})
        answer = connection.getresponse()
        try:
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


def _connect(port: int) -> object:
    import socket

    return socket.create_connection(("127.0.0.1", port), timeout=30)


def _pod_token(shop: Shop, pod: str, audience: str = "nightcap") -> str:
    uid = shop.get("pod", pod)["metadata"]["uid"]
    return shop.run(
        "create", "token", "default", f"--audience={audience}",
        "--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}",
    ).strip()  # fmt: skip


def test_uploads_are_taken_from_selected_pods_alone(recorded: Shop, stage: Stage) -> None:
    shop = recorded
    shop.start(shop.pod("other"))
    # Only `web` is selected from now on.
    shop.create(shop.capture("one", podNames=["web"], filter="udp port 7999"))
    uid = shop.get("pcap", "one")["metadata"]["uid"]
    path = f"/v1/captures/{uid}/eth0/77"
    header = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
    with collector(stage) as to:
        first = {"Upload_Offset": "0", "Upload_Complete": "?0"}
        web, other = _pod_token(shop, "web"), _pod_token(shop, "other")
        assert to.ask("PATCH", path, other, header, **first).status == 403
        assert to.ask("PATCH", path, "no.such.token", header, **first).status == 401
        api_token = _pod_token(shop, "web", "https://kubernetes.default.svc")
        assert to.ask("PATCH", path, api_token, header, **first).status == 401
        person = shop.run("create", "token", "default", "--audience=nightcap").strip()
        assert to.ask("PATCH", path, person, header, **first).status == 403
        assert to.ask("PATCH", path, web, header, **first).status == 204
        # A wrong offset is answered with the right one, and nothing is written.
        again = to.ask("PATCH", path, web, header, **first)
        assert again.status == 409
        assert again.headers["Upload-Offset"] == "24"
        assert to.ask("HEAD", path, web).headers["Upload-Offset"] == "24"
        unknown = "/v1/captures/00000000-0000-4000-8000-000000000000/eth0/0"
        assert to.ask("PATCH", unknown, web, header, **first).status == 410
        for bad in (f"/v1/captures/{uid}/..%2f..%2f/0", f"/v1/captures/../{uid}/eth0/0"):
            assert to.ask("PATCH", bad, web, header, **first).status in (400, 404)
        no_pcap = to.ask("PATCH", f"/v1/captures/{uid}/eth0/78", web, b"x" * 40, **first)
        assert no_pcap.status == 400


def test_files_outlive_their_pod(recorded: Shop, retrieval: Retrieval) -> None:
    shop = recorded
    token = shop.person("analyst", "nightcap-files")
    shop.run("delete", "pod", "web")
    files = shop.files(retrieval, "dns", token)
    assert [bytes(p["UDP"].payload).decode() for f in files for p in f.packets] == PACKETS


def test_last_packets_before_termination_are_shipped(shop: Shop, retrieval: Retrieval) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("last", filter="udp port 7000"))
    shop.wait_open("last")
    shop.send_udp("web", "192.0.2.1", 7000, [str(number) for number in range(200)])
    shop.run("delete", "pod", "web", "--wait=true")
    token = shop.person("analyst", "nightcap-files")
    files = shop.files(retrieval, "last", token)
    found = [bytes(p["UDP"].payload).decode() for f in files for p in f.packets]
    assert found == [str(number) for number in range(200)]


@pytest.mark.alone
def test_programs_that_are_killed_come_back_and_nothing_is_lost(
    shop: Shop, retrieval: Retrieval, stage: Stage
) -> None:
    """Controller and retrieval are killed while numbered packets pass; all of them are there."""
    shop.start(shop.pod("web"))
    shop.create(shop.capture("all", filter="udp port 7000"))
    shop.wait_open("all")
    token = shop.person("analyst", "nightcap-files")
    sent: list[str] = []
    for name in ("nightcap-controller", "nightcap-retrieval"):
        batch = [f"{name}-{number}" for number in range(50)]
        shop.send_udp("web", "192.0.2.1", 7000, batch)
        sent += batch
        stage.kubectl.run(
            "-n", "nightcap-system", "delete", "pod", "--force", "--grace-period=0",
            "-l", f"app.kubernetes.io/name={name}",
        )  # fmt: skip
        batch = [f"{name}-after-{number}" for number in range(50)]
        shop.send_udp("web", "192.0.2.1", 7000, batch)
        sent += batch
        stage.kubectl.rolled_out("nightcap-system", name)

    assert shop.payloads("all", token, len(sent)) == sent
    shop.create(shop.capture("after", filter="udp port 7001"))
    shop.wait_open("after")
    assert json.loads(shop.annotations("web")["nightcap.dev/orders"])["v"] == 1
