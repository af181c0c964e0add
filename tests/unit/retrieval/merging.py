"""The files program's application over a store with two pods, and readers of its pcapng."""

import io
import json
from typing import Any

from werkzeug.test import Client, TestResponse

from nightcap.contract.segments import StreamKey
from nightcap.pcap.formats import Header, Record, pack_header, pack_record
from nightcap.pcap.pcapng import Interface, Packet, Value
from nightcap.pcap.pcapng_reading import PcapngReader
from retrieval.audit import Auditor
from retrieval.files.app import create_app
from retrieval.files.people import People
from retrieval.store.base import Store
from tests.unit.retrieval.builders import CAPTURE, STREAM, a_key
from tests.unit.retrieval.fake_api import FakeApi

BASE = "/v1/namespaces/storefront/packetcaptures/dns"
OTHER = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000002")
START = 1_700_000_000 * 10**9
ETHERNET = Header(1, 262144, nanoseconds=True)
RAW = Header(101, 65535, nanoseconds=False)
COOKED = Header(147, 65535, nanoseconds=True)  # a number for private use: no filter knows it


class Merged:
    """The application over a store with two pods."""

    def __init__(self, store: Store, api: FakeApi) -> None:
        self.store, self.api = store, api
        self.audit: list[dict[str, Any]] = []
        self.is_ready = True
        auditor = Auditor(lambda line: self.audit.append(json.loads(line)))
        self.client = Client(create_app(store, People(api.client), auditor, lambda: self.is_ready))

    def ask(self, path: str, who: str = "reader", method: str = "GET") -> TestResponse:
        headers = {"Authorization": f"Bearer {who}"}
        return self.client.open(f"{BASE}/{path}", method=method, headers=headers)

    def values(self, query: str = "") -> list[Value]:
        answer = self.ask(f"merged.pcapng{query}")
        assert answer.status_code == 200, answer.text
        return values_of(answer.data)

    def put(
        self,
        *at_ns: int,
        stream: StreamKey = STREAM,
        seq: int = 1,
        header: Header = ETHERNET,
        interface: str = "eth0",
        complete: bool = True,
        data: bytes = b"data",
    ) -> None:
        key = a_key(seq, interface, stream)
        size = self.store.segment(key).size
        records = [Record(START + ns, 99, data) for ns in at_ns]
        body = b"" if size else pack_header(header)
        body += b"".join(pack_record(header, record) for record in records)
        if not size:
            self.store.set_link(key, header.linktype)
        self.store.append(key, size, body, complete=complete)
        self.store.wait_durable(key, size + len(body), 5)


def values_of(data: bytes) -> list[Value]:
    reader = PcapngReader(io.BytesIO(data))
    found = list(reader)
    assert reader.damage == ""
    return found


def packets(values: list[Value]) -> list[tuple[str, int]]:
    """(name of the interface, nanoseconds after the start) of each packet."""
    interfaces = [value for value in values if isinstance(value, Interface)]
    return [
        (interfaces[value.interface].name, (value.time_ns or 0) - START)
        for value in values
        if isinstance(value, Packet)
    ]


def only(values: list[Value], kind: type) -> list[Any]:
    return [value for value in values if isinstance(value, kind)]
