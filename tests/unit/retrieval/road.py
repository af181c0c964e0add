"""A real worker in a network namespace, the real collector and files program, and a reader."""

import io
import json
import socket
import zipfile
from pathlib import Path
from typing import Any

from nightcap.contract.paths import collector_name
from nightcap.contract.reports import Report, parse_report
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.pcap.formats import PcapReader
from tests.apiserver.balancer import Balancer
from tests.netns.collector import TOKEN
from tests.netns.net import Link
from tests.netns.pods import ID, Pod
from tests.unit.retrieval.builders import POD, a_capture, a_pod
from tests.unit.retrieval.programs import Installation


class Road:
    """One capture of one pod, from its worker to a person.

    Attributes:
        pod: Trusts this installation's collector, and is known to its API.
    """

    def __init__(self, installation: Installation, link: Link, folder: Path) -> None:
        self.installation = installation
        self.api = api = installation.api
        api.captures = [a_capture(uid=ID, endTime="2030-01-01T00:00:00Z")]
        api.pods["storefront", "web-0"] = a_pod()
        api.add_pod_token(TOKEN, "storefront", "web-0", POD)
        api.users["reader", "api"] = {"username": "reader"}
        asked = ("get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
        api.allowed |= {("reader", *asked), ("reader", "get", "/v1/reports")}
        listening = link.peer.socket(kind=socket.SOCK_STREAM)
        listening.bind((link.peer.address, COLLECTOR_PORT))
        # Abruptly, so that the worker notices at once that the collector was killed.
        self._network = Balancer([0], listening, ends_abruptly=True)
        environ = {
            "NIGHTCAP_COLLECTOR_CA": installation.ca,
            "NIGHTCAP_COLLECTOR_NAME": collector_name(1),
        }
        folder.mkdir()
        self.pod = Pod(link, folder, ((link.peer.address, COLLECTOR_PORT),), environ)
        self._files_port = 0

    def start_collector(self) -> None:
        self._network.ports = [self.installation.start("collector")]

    def close(self) -> None:
        self.pod.close()
        self._network.close()

    def report(self) -> Report | None:
        """The pod's report as it lies in the store."""
        for path in self.installation.store.rglob("report.json"):
            return parse_report(json.dumps(json.loads(path.read_text())["report"]))
        return None

    def reports(self) -> bytes:
        """What the controller gets from the collector."""
        return self._get(self.installation.port_of("collector"), "/v1/reports")

    def listed(self) -> dict[str, Any]:
        """What a person sees of the files."""
        path = "/v1/namespaces/storefront/packetcaptures/dns/files"
        value: dict[str, Any] = json.loads(self.get(path))
        return value

    def archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(self.get("/download/storefront/dns/files.zip")))

    def numbers(self) -> list[int]:
        """Those in the packets that a person gets."""
        archive = self.archive()
        return [
            int.from_bytes(record.data[42:50], "big")
            for name in archive.namelist()
            for record in PcapReader(io.BytesIO(archive.read(name)))
        ]

    def get(self, path: str) -> bytes:
        """Ask the files program, as the reader."""
        if not self._files_port:
            self._files_port = self.installation.start("files")
        return self._get(self._files_port, path)

    def _get(self, port: int, path: str) -> bytes:
        connection = self.installation.connect(port)
        try:
            connection.request("GET", path, headers={"Authorization": "Bearer reader"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return answer.read()
        finally:
            connection.close()
