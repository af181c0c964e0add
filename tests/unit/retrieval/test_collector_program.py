"""The collector as a process: what TLS, gunicorn and `kill -9` make of the promises."""

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterator

import pytest

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.collector.app import POD_APPENDS
from retrieval.store.directory import ReadableDirectory
from tests.unit.retrieval.builders import (
    CAPTURE,
    HEADER,
    a_capture,
    a_key,
    a_pcap,
    a_pod,
    a_record,
    a_report,
)
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.programs import Installation, wait_for

PODS = {f"web-{number}": f"90d00000-0000-4000-8000-00000000000{number}" for number in range(4)}


def let_in(api: FakeApi) -> None:
    api.captures = [a_capture()]
    for name, uid in PODS.items():
        api.pods["storefront", name] = a_pod(name, uid)
        api.add_pod_token(f"token-of-{name}", "storefront", name, uid)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, int]]:
    """One collector for the tests that leave it alive; each uses a pod of its own."""
    api = FakeApi()
    let_in(api)
    installation = Installation(api, tmp_path_factory.mktemp("collector"))
    yield installation, installation.start("collector")
    installation.kill()
    api.close()


@pytest.fixture
def connection(shared: tuple[Installation, int]) -> Iterator[http.client.HTTPSConnection]:
    installation, port = shared
    opened = installation.connect(port)
    yield opened
    opened.close()


def append(
    connection: http.client.HTTPSConnection,
    body: bytes,
    offset: int,
    *,
    who: str = "token-of-web-0",
    complete: bool = False,
    **headers: str,
) -> http.client.HTTPResponse:
    sent = {
        "Authorization": f"Bearer {who}",
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if complete else "?0",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    connection.request("PATCH", f"/v1/captures/{CAPTURE}/eth0/1", body, sent)
    answer = connection.getresponse()
    answer.read()
    return answer


def test_one_connection_carries_appends_refusals_and_reports(
    connection: http.client.HTTPSConnection,
) -> None:
    pcap = a_pcap()
    assert append(connection, pcap, 0, Nightcap_Report=a_report()).status == 204
    socket = connection.sock
    assert append(connection, bytes(2**22), 0).status == 409
    assert connection.sock is socket
    answer = append(connection, b"", len(pcap), complete=True)
    assert (answer.status, answer.headers["Nightcap-Durable"]) == (204, str(len(pcap)))


@pytest.mark.parametrize("size", [1000, 2**16, 4 * 2**20])
def test_a_body_ends_where_its_length_says_however_it_comes(
    shared: tuple[Installation, int], size: int
) -> None:
    """Its head with some of it in one piece, the rest with the next request in another."""
    installation, port = shared
    pcap = (HEADER + a_record(1, bytes(range(256)) * (size // 256 + 1)))[:size]
    connection = installation.connect(port)
    connection.connect()
    line = f"PATCH /v1/captures/{CAPTURE}/eth0/{size} HTTP/1.1\r\nHost: x\r\n"
    who = "Authorization: Bearer token-of-web-1\r\n"
    first = f"{line}{who}Upload-Offset: 0\r\nUpload-Complete: ?0\r\nContent-Length: {size}\r\n\r\n"
    then = f"{line}{who}Upload-Offset: {size}\r\nUpload-Complete: ?1\r\n\r\n"
    connection.send(first.encode() + pcap[:700])
    connection.send(pcap[700:] + then.encode())
    answers = b""
    while answers.count(b"\r\n\r\n") < 2:
        answers += connection.sock.recv(65536)
    connection.close()
    assert answers.count(b"HTTP/1.1 204 ") == 2, answers
    key = SegmentKey(StreamKey("storefront", CAPTURE, PODS["web-1"]), "eth0", size)
    with ReadableDirectory(installation.store).open(key) as reader:
        assert reader.read_at(0, 2**24) == pcap


def test_a_refusal_reaches_who_is_still_sending_and_is_the_connections_last_answer(
    connection: http.client.HTTPSConnection,
) -> None:
    connection.connect()
    head = f"PATCH /v1/captures/{CAPTURE}/eth0/1 HTTP/1.1\r\nHost: x\r\n"
    connection.send(f"{head}Content-Length: {2**22}\r\n\r\n".encode())
    connection.send(bytes(2**22))
    answer = b""
    while piece := connection.sock.recv(4096):
        answer += piece
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_body_that_is_too_large_is_refused_before_it_comes(
    connection: http.client.HTTPSConnection,
) -> None:
    connection.putrequest("PATCH", f"/v1/captures/{CAPTURE}/eth0/1")
    connection.putheader("Authorization", "Bearer token-of-web-1")
    connection.putheader("Upload-Offset", "0")
    connection.putheader("Content-Length", str(2**22 + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_of_a_body_that_was_cut_nothing_is_kept(
    connection: http.client.HTTPSConnection,
) -> None:
    pcap = a_pcap()
    append(connection, pcap, 0, who="token-of-web-2")
    connection.putrequest("PATCH", f"/v1/captures/{CAPTURE}/eth0/1")
    connection.putheader("Authorization", "Bearer token-of-web-2")
    connection.putheader("Upload-Offset", str(len(pcap)))
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"x" * 500)
    time.sleep(0.2)
    connection.close()
    answer = append(connection, b"", len(pcap), who="token-of-web-2")
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(len(pcap)))


def test_bodies_that_do_not_come_take_their_own_pods_places_and_nobody_elses(
    shared: tuple[Installation, int],
) -> None:
    installation, port = shared
    with contextlib.ExitStack() as stack:

        def connect() -> http.client.HTTPSConnection:
            return stack.enter_context(contextlib.closing(installation.connect(port)))

        # Twice as many: whoever comes while we ask below finds our own place taken, and is refused.
        half = [connect() for _ in range(2 * POD_APPENDS)]
        for number, each in enumerate(half):
            each.putrequest("PATCH", f"/v1/captures/{CAPTURE}/eth0/{100 + number}")
            each.putheader("Authorization", "Bearer token-of-web-3")
            each.putheader("Upload-Offset", "0")
            each.putheader("Content-Length", "1000")
            each.endheaders(b"x" * 500)
        same, other = connect(), connect()
        wait_for(lambda: append(same, b"", 0, who="token-of-web-3").status == 429)
        assert append(other, a_pcap(), 0).status in (204, 409)  # one test of web-0 was before
        for each in half:
            each.close()
        wait_for(lambda: append(same, b"", 0, who="token-of-web-3").status == 204)


def test_what_was_called_durable_survives_kill_9_and_the_rest_is_resumed(
    installation: Installation,
) -> None:
    let_in(installation.api)
    port = installation.start("collector")
    pcaps = {name: a_pcap(3000, seed=number) for number, name in enumerate(PODS)}
    durable = dict.fromkeys(PODS, 0)
    ports = [port]

    def ship(name: str) -> None:
        source, pcap = random.Random(name), pcaps[name]  # noqa: S311 - cuts bodies
        offset, connection = 0, installation.connect(port)
        while durable[name] < len(pcap) or not is_complete.get(name):
            body = pcap[offset : offset + source.randint(1, source.choice((50_000, 150_000)))]
            done = offset + len(body) == len(pcap)
            try:
                answer = append(connection, body, offset, who=f"token-of-{name}", complete=done)
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
