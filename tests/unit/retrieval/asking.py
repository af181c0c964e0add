"""The files program's application over a real store, and people who ask it."""

import json
from typing import Any

from werkzeug.test import Client, TestResponse

from nightcap.contract.segments import StreamKey
from retrieval.audit import Auditor
from retrieval.files.app import create_app
from retrieval.files.people import People
from retrieval.store.base import Store
from tests.unit.retrieval.builders import FIRST_US, STREAM, a_key
from tests.unit.retrieval.fake_api import FakeApi

BASE = "/v1/namespaces/storefront/packetcaptures/dns"
NAME = f"web-0_eth0-{FIRST_US}.pcap"
DOWNLOADS = (
    "/download/storefront/dns/files.zip",
    "/packet-capture/download/storefront/dns/files.zip",
    f"{BASE}/files.zip",
)
OURS = (f"{BASE}/files", f"{BASE}/files/{NAME}", f"{BASE}/files.zip")
DELETIONS = (
    "/files/storefront/dns",
    "/packet-capture/files/storefront/dns",
    "/packet-capture/files/storefront/dns/files.zip",
    "/packet-capture/download/storefront/dns/files.zip",
)


class Files:
    """The application, its audit records, and people by their tokens."""

    def __init__(self, store: Store, api: FakeApi) -> None:
        self.store, self.api = store, api
        self.audit: list[dict[str, Any]] = []
        auditor = Auditor(lambda line: self.audit.append(json.loads(line)))
        self.has_calico = True
        people = People(api.client, has_calico=lambda: self.has_calico)
        self.client = Client(create_app(store, people, auditor, lambda: True))

    def ask(
        self, path: str, *, who: str = "reader", method: str = "GET", **headers: str
    ) -> TestResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if who:
            sent.setdefault("Authorization", f"Bearer {who}")
        return self.client.open(path, method=method, headers=sent)


def allow(
    api: FakeApi,
    user: str,
    verb: str,
    namespace: str = "storefront",
    group: str = "nightcap.dev",
) -> None:
    api.allowed.add((user, verb, group, "packetcaptures", "files", namespace, "dns"))


def put(
    files: Files,
    pcap: bytes,
    seq: int = 1,
    *,
    complete: bool = True,
    interface: str = "eth0",
    stream: StreamKey = STREAM,
) -> None:
    key = a_key(seq, interface, stream)
    size = files.store.segment(key).size
    files.store.append(key, size, pcap, complete=complete)
    files.store.wait_durable(key, size + len(pcap), 5)


# Who may.
