"""A real worker in a network namespace ships to the real collector; a person reads the files."""

import io
import json
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightcap.contract.orders import Limit, Rotation
from nightcap.contract.paths import collector_name
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.pcap.formats import PcapReader
from tests.netns.collector import TOKEN
from tests.netns.net import Link, joined
from tests.netns.pods import ID, Pod, an_order
from tests.unit.retrieval.builders import POD, a_capture, a_pod
from tests.unit.retrieval.programs import Installation

pytestmark = pytest.mark.netns


class Forwarder:
    """Joins a listener in the peer's namespace to the port that the collector has just now."""

    def __init__(self, link: Link) -> None:
        self.port = 0
        self._listening = link.peer.socket(kind=socket.SOCK_STREAM)
        self._listening.bind((link.peer.address, COLLECTOR_PORT))
        self._listening.listen()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            each.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("localhost", self.port))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=_pump, args=pair)
                self._threads.append(thread)
                thread.start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for each in (source, sink):
        try:
            # An abrupt end, as of a process that died: the worker is to notice at once.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture
def link() -> Iterator[Link]:
    with joined() as link:
        yield link


def test_a_workers_packets_reach_a_person_though_the_collector_is_killed(
    installation: Installation, link: Link, tmp_path: Path
) -> None:
    api = installation.api
    api.captures = [a_capture(uid=ID, endTime="2030-01-01T00:00:00Z")]
    api.pods["storefront", "web-0"] = a_pod()
    api.add_pod_token(TOKEN, "storefront", "web-0", POD)
    api.users["reader", "api"] = {"username": "reader"}
    asked = ("get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
    api.allowed.add(("reader", *asked))
    forwarder = Forwarder(link)
    environ = {
        "NIGHTCAP_COLLECTOR_CA": installation.ca,
        "NIGHTCAP_COLLECTOR_NAME": collector_name(1),
    }
    folder = tmp_path / "pod"
    folder.mkdir()
    pod = Pod(link, folder, ((link.peer.address, COLLECTOR_PORT),), environ)
    try:
        forwarder.port = installation.start("collector")
        pod.order(an_order(limit=Limit(bytes=0, packets=3000), rotation=Rotation(max_bytes=30_000)))
        pod.start()
        pod.wait_open()
        link.send(1500)
        time.sleep(1.0)
        installation.kill()
        link.send(1500, first=1500)
        forwarder.port = installation.start("collector")
        assert pod.wait_end(30) == 0, pod.log()
    finally:
        pod.close()
        forwarder.close()
    files = installation.start("files")
    connection = installation.connect(files)
    headers = {"Authorization": "Bearer reader"}
    connection.request("GET", "/download/storefront/dns/files.zip", headers=headers)
    archive = zipfile.ZipFile(io.BytesIO(connection.getresponse().read()))
    numbers = [
        int.from_bytes(record.data[42:50], "big")
        for name in archive.namelist()
        for record in PcapReader(io.BytesIO(archive.read(name)))
    ]
    assert numbers == list(range(3000))
    base = "/v1/namespaces/storefront/packetcaptures/dns/files"
    connection.request("GET", base, headers=headers)
    listed = json.loads(connection.getresponse().read())["files"]
    connection.close()
    assert [file["file"] for file in listed] == archive.namelist()
    assert {file["state"] for file in listed} == {"complete"}
    assert sum(file["packets"] for file in listed) == 3000
    (report,) = installation.store.rglob("report.json")
    assert json.loads(report.read_text())["report"]["shipped"] is True
