"""All pods in one pcapng file, opened with tools that are not ours; and while it grows."""

import contextlib
import http.client
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.files import Retrieval
from demo.kubectl import wait_for
from tests.e2e.shop import Shop


@pytest.fixture
def two_pods(shop: Shop) -> Shop:
    """A namespace with the capture `dns` of two pods, no packet in it yet."""
    shop.start(shop.pod("web"), shop.pod("backend"))
    shop.create(shop.capture("dns", filter="udp port 7000"))
    shop.wait_open("dns", pods=2)
    return shop


def rows(path: Path, *fields: str) -> list[list[str]]:
    """The fields of each packet, as tshark says, names resolved from the file alone."""
    options = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-N", "n", "-r", str(path), "-T", "fields", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def payload(text: str) -> str:
    return text.encode().hex()


def test_merged_file_shows_all_pods_by_name_in_order_of_time(
    two_pods: Shop, retrieval: Retrieval, tmp_path: Path
) -> None:
    shop = two_pods
    token = shop.person("analyst", "nightcap-files")
    base = f"/v1/namespaces/{shop.name}/packetcaptures/dns/merged.pcapng"
    assert retrieval.get(base, token).status == 204
    for number, pod in enumerate(("web", "backend", "web", "backend")):
        peer = "backend" if pod == "web" else "web"
        shop.send_udp(pod, shop.ip(peer), 7000, [f"{pod} {number}"])
    # Each packet leaves one pod and comes to the other.
    wait_for("eight packets", lambda: shop.status("dns").get("packets") == 8, 90)
    path = tmp_path / "merged.pcapng"
    path.write_bytes(retrieval.get(base, token).body)
    found = rows(
        path,
        "frame.interface_name",
        "ip.src_host",
        "ip.dst_host",
        "udp.payload",
        "frame.time_epoch",
    )
    sent = [
        row[3]
        for row in found
        if (row[0], row[1]) in (("web:eth0", "web"), ("backend:eth0", "backend"))
    ]
    assert sent == [payload(text) for text in ("web 0", "backend 1", "web 2", "backend 3")]
    assert {row[0] for row in found} == {"web:eth0", "backend:eth0"}
    assert {(row[1], row[2]) for row in found} == {("web", "backend"), ("backend", "web")}
    times = [row[4] for row in found]
    assert times == sorted(times)
    path.write_bytes(retrieval.get(f"{base}?pod=web&filter=src%20{shop.ip('web')}", token).body)
    cut = rows(path, "frame.interface_name", "udp.payload")
    assert cut == [["web:eth0", payload("web 0")], ["web:eth0", payload("web 2")]]
    refused = retrieval.get(f"{base}?filter=udp%20port%2099999", token)
    assert refused.status == 400
    assert b"illegal port number" in refused.body
    nobody = shop.person("nobody")
    for route in ("merged.pcapng", "live.pcapng"):
        assert retrieval.get(base.replace("merged.pcapng", route), nobody).status == 403


class Viewer:
    """`curl .../live.pcapng | tshark -i -`."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.lines: list[str] = []
        self.received = b""
        command = ["tshark", "-l", "-n", "-i", "-", "-T", "fields"]
        fields = ("frame.interface_name", "udp.payload")
        self.tshark = subprocess.Popen(
            command + [part for field in fields for part in ("-e", field)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.answer = answer
        self.threads = [threading.Thread(target=self._feed), threading.Thread(target=self._show)]
        for thread in self.threads:
            thread.start()

    def _feed(self) -> None:
        assert self.tshark.stdin is not None
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            while piece := self.answer.read1(2**16):
                self.received += piece
                self.tshark.stdin.write(piece)
                self.tshark.stdin.flush()
        with contextlib.suppress(OSError):
            self.tshark.stdin.close()

    def _show(self) -> None:
        assert self.tshark.stdout is not None
        for line in self.tshark.stdout:
            self.lines.append(line.decode().rstrip("\n"))

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
        self.tshark.wait(30)
        assert self.tshark.stdout is not None
        self.tshark.stdout.close()


@contextlib.contextmanager
def live(retrieval: Retrieval, path: str, token: str) -> Iterator[Viewer]:
    connection = retrieval.connect()
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    assert answer.status == 200
    viewer = Viewer(answer)
    try:
        yield viewer
    finally:
        viewer.tshark.terminate()
        viewer.join()
        connection.close()


def test_live_shows_packets_as_they_come_while_files_are_kept(
    two_pods: Shop, retrieval: Retrieval
) -> None:
    shop = two_pods
    token = shop.person("analyst", "nightcap-files")
    path = f"/v1/namespaces/{shop.name}/packetcaptures/dns/live.pcapng"
    with live(retrieval, path, token) as first, live(retrieval, path, token) as second:
        shop.send_udp("web", "192.0.2.1", 7000, ["early"])
        for viewer in (first, second):
            wait_for(
                "the first packet", lambda v=viewer: f"web:eth0\t{payload('early')}" in v.lines, 30
            )
        # A pod that is born meanwhile joins.
        shop.start(shop.pod("late"))
        shop.send_udp("late", "192.0.2.1", 7000, ["from the late one"])
        shop.send_udp("web", "192.0.2.1", 7000, ["again"])
        expected = {
            f"web:eth0\t{payload('early')}",
            f"late:eth0\t{payload('from the late one')}",
            f"web:eth0\t{payload('again')}",
        }
        for viewer in (first, second):
            wait_for("the other packets", lambda v=viewer: expected <= set(v.lines), 30)
        shop.run("patch", "packetcapture", "dns", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        for viewer in (first, second):
            viewer.join()  # live ends with the capture
            assert set(viewer.lines) == expected
    assert {file.pod for file in shop.files(retrieval, "dns", token)} == {"web", "late"}
