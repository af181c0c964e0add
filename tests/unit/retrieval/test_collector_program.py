"""The collector as a process: what TLS, gunicorn and `kill -9` make of the promises."""

import http.client
import random
import threading
import time

import pytest

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.store.directory import ReadableDirectory
from tests.unit.retrieval.builders import CAPTURE, POD, a_capture, a_key, a_pcap, a_pod, a_report
from tests.unit.retrieval.programs import Installation

PODS = {f"web-{number}": f"90d00000-0000-4000-8000-00000000000{number}" for number in range(4)}


@pytest.fixture
def port(installation: Installation) -> int:
    api = installation.api
    api.captures = [a_capture()]
    for name, uid in PODS.items():
        api.pods["storefront", name] = a_pod(name, uid)
        api.add_pod_token(f"token-of-{name}", "storefront", name, uid)
    api.add_pod_token("token", "storefront", "web-9", POD)
    api.pods["storefront", "web-9"] = a_pod("web-9")
    return installation.start("collector")


def append(
    connection: http.client.HTTPSConnection,
    body: bytes,
    offset: int,
    *,
    token: str = "token",
    complete: bool = False,
    **headers: str,
) -> http.client.HTTPResponse:
    sent = {
        "Authorization": f"Bearer {token}",
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if complete else "?0",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    connection.request("PATCH", f"/v1/captures/{CAPTURE}/eth0/1", body, sent)
    answer = connection.getresponse()
    answer.read()
    return answer


def test_one_connection_carries_appends_refusals_and_reports(
    installation: Installation, port: int
) -> None:
    connection = installation.connect(port)
    pcap = a_pcap()
    assert append(connection, pcap, 0, Nightcap_Report=a_report()).status == 204
    assert append(connection, pcap, 0).status == 409
    socket = connection.sock
    # A refusal reaches who is still sending, and the connection goes on.
    assert append(connection, bytes(2**22), 0, token="stranger").status == 401
    assert append(connection, bytes(2**22), 0).status == 409
    assert connection.sock is socket
    answer = append(connection, b"", len(pcap), complete=True)
    assert (answer.status, answer.headers["Nightcap-Durable"]) == (204, str(len(pcap)))
    connection.close()


def test_a_body_that_is_too_large_is_refused_before_it_comes(
    installation: Installation, port: int
) -> None:
    connection = installation.connect(port)
    connection.putrequest("PATCH", f"/v1/captures/{CAPTURE}/eth0/1")
    connection.putheader("Authorization", "Bearer token")
    connection.putheader("Upload-Offset", "0")
    connection.putheader("Content-Length", str(2**22 + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_of_a_body_that_was_cut_nothing_is_kept(installation: Installation, port: int) -> None:
    connection = installation.connect(port)
    pcap = a_pcap()
    append(connection, pcap, 0)
    connection.putrequest("PATCH", f"/v1/captures/{CAPTURE}/eth0/1")
    connection.putheader("Authorization", "Bearer token")
    connection.putheader("Upload-Offset", str(len(pcap)))
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"x" * 500)
    time.sleep(0.2)
    connection.close()
    again = installation.connect(port)
    answer = append(again, b"", len(pcap))
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(len(pcap)))
    again.close()


def test_what_was_called_durable_survives_kill_9_and_the_rest_is_resumed(
    installation: Installation, port: int
) -> None:
    pcaps = {name: a_pcap(4000, seed=number) for number, name in enumerate(PODS)}
    durable = dict.fromkeys(PODS, 0)
    ports = [port]

    def ship(name: str) -> None:
        source, pcap = random.Random(name), pcaps[name]
        offset, connection = 0, installation.connect(port)
        while durable[name] < len(pcap) or not is_complete.get(name):
            body = pcap[offset : offset + source.randint(1, 20_000)]
            done = offset + len(body) == len(pcap)
            try:
                answer = append(
                    connection, body, offset, token=f"token-of-{name}", complete=done
                )
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
                connection.close()
                connection = installation.connect(ports[-1])
                continue
            offset = int(answer.headers["Upload-Offset"])
            if answer.status == 204:
                durable[name] = int(answer.headers["Nightcap-Durable"])
                is_complete[name] = done
        connection.close()

    is_complete: dict[str, bool] = {}
    threads = [threading.Thread(target=ship, args=(name,)) for name in PODS]
    for thread in threads:
        thread.start()
    store = ReadableDirectory(installation.store)
    for _ in range(2):
        time.sleep(0.5)
        installation.kill()
        promised = dict(durable)
        for name, uid in PODS.items():
            key = SegmentKey(StreamKey("storefront", CAPTURE, uid), "eth0", 1)
            with store.open(key) as reader:
                stored = reader.read_at(0, 2**24)
            assert len(stored) >= promised[name]
            assert pcaps[name].startswith(stored)
        ports.append(installation.start("collector"))
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for name, uid in PODS.items():
        stream = StreamKey("storefront", CAPTURE, uid)
        (segment,) = store.segments(stream)
        assert segment.complete
        with store.open(a_key(stream=stream)) as reader:
            assert reader.read_at(0, 2**24) == pcaps[name]
