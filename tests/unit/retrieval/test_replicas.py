"""Two replicas over one object store, killed and added while sidecars ship and a person reads."""

import http.client
import io
import random
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nightcap.contract.segments import SegmentKey, StreamKey
from tests.unit.retrieval.builders import CAPTURE, a_capture, a_pcap, a_pod, a_report
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.places import Prefix
from tests.unit.retrieval.programs import Installation
from tests.unit.retrieval.s3 import S3Server

PODS = {f"web-{n}": f"90d00000-0000-4000-8000-00000000000{n}" for n in range(4)}
SEGMENTS = 3
PACKETS = 2500


@dataclass
class Sidecar:
    """Ships numbered packets, segment after segment, to whichever replica answers.

    Attributes:
        durable: Segment → bytes that some replica has called safe.
    """

    installation: Installation
    pod: str
    seed: int
    durable: dict[int, int] = field(default_factory=dict)
    conflicts: int = 0
    fault: str = ""

    def pcap(self, seq: int) -> bytes:
        return a_pcap(PACKETS, first_us=10**15 + seq * 10**9, seed=self.seed * 100 + seq)

    def run(self) -> None:
        try:
            source = random.Random(self.seed)  # noqa: S311 - cuts bodies, picks replicas
            for seq in range(SEGMENTS):
                self._ship(seq, source)
        except Exception as error:  # noqa: BLE001 - for the test to see
            self.fault = repr(error)

    def _ship(self, seq: int, source: random.Random) -> None:
        pcap, offset, is_complete = self.pcap(seq), 0, False
        connection: http.client.HTTPSConnection | None = None
        deadline = time.monotonic() + 90
        while not (is_complete and self.durable.get(seq, 0) == len(pcap)):
            assert time.monotonic() < deadline, f"segment {seq} at {offset} of {len(pcap)}"
            ports = tuple(self.installation.processes)
            if connection is None or source.random() < 0.1:
                if connection is not None:
                    connection.close()
                if not ports:
                    time.sleep(0.02)
                    continue
                connection = self.installation.connect(source.choice(ports))
            body = pcap[offset : offset + source.randint(1, 60_000)]
            done = offset + len(body) == len(pcap)
            headers = {
                "Authorization": f"Bearer token-of-{self.pod}",
                "Upload-Offset": str(offset),
                "Upload-Complete": "?1" if done else "?0",
                "Nightcap-Report": a_report(seq * 10**6 + offset),
            }
            try:
                connection.request("PATCH", f"/v1/captures/{CAPTURE}/eth0/{seq}", body, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = None
                continue
            if answer.status == 204:
                received = int(answer.headers["Upload-Offset"])
                self.durable[seq] = max(
                    self.durable.get(seq, 0), int(answer.headers["Nightcap-Durable"])
                )
                is_complete = done and received == len(pcap)
                offset = received
            elif answer.status == 409:
                self.conflicts += 1
                offset = int(answer.headers["Upload-Offset"])
            else:
                assert answer.status in (403, 503), answer.status
                time.sleep(0.1)
        if connection is not None:
            connection.close()


@pytest.fixture
def replicas(
    api: FakeApi, tmp_path: Path, prefix: Prefix, s3_server: S3Server
) -> Iterator[Installation]:
    made = Installation(api, tmp_path, prefix.url, s3_server.environ)
    api.captures = [a_capture()]
    for name, uid in PODS.items():
        api.pods["storefront", name] = a_pod(name, uid)
        api.add_pod_token(f"token-of-{name}", "storefront", name, uid)
    api.users["reader", "api"] = {"username": "reader", "groups": ["people"]}
    api.allowed.add(
        ("reader", "get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
    )
    yield made
    made.kill()


def test_replicas_are_killed_and_added_under_load_and_nothing_is_lost_or_doubled(
    replicas: Installation, prefix: Prefix
) -> None:
    for _ in range(2):
        replicas.start("collector")
    sidecars = [Sidecar(replicas, pod, number) for number, pod in enumerate(PODS)]
    threads = [threading.Thread(target=sidecar.run) for sidecar in sidecars]
    for thread in threads:
        thread.start()
    source = random.Random(7)  # noqa: S311 - whom to kill
    for _ in range(4):
        time.sleep(source.random())
        replicas.kill_one(source.choice(tuple(replicas.processes)))
        replicas.start("collector")
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert [sidecar.fault for sidecar in sidecars] == [""] * len(sidecars)
    store = prefix.open_readable()
    assert len(store.streams("storefront", CAPTURE)) == len(PODS)
    for sidecar in sidecars:
        stream = StreamKey("storefront", CAPTURE, PODS[sidecar.pod])
        segments = {segment.key.seq: segment for segment in store.segments(stream)}
        assert sorted(segments) == list(range(SEGMENTS))
        for seq, segment in segments.items():
            assert segment.complete
            with store.open(SegmentKey(stream, "eth0", seq)) as reader:
                assert reader.read_at(0, 2**24) == sidecar.pcap(seq)
    # And through another program, which has seen none of it.
    port = replicas.start("files")
    connection = replicas.connect(port)
    connection.request(
        "GET", "/download/storefront/dns/files.zip", headers={"Authorization": "Bearer reader"}
    )
    answer = connection.getresponse()
    data = answer.read()
    assert answer.headers["Content-Length"] == str(len(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        stored = sorted(archive.read(name) for name in archive.namelist())
    connection.close()
    assert stored == sorted(s.pcap(seq) for s in sidecars for seq in range(SEGMENTS))
