"""The files program as a process: what TLS and clients that go away make of the promises."""

import contextlib
import http.client
import io
import json
import socket
import threading
import time
import zipfile

from retrieval.files.doorkeeper import PERSON_ANSWERS
from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.builders import CAPTURE, FIRST_US, HEADER, READER, a_key, a_pcap, a_record
from tests.unit.retrieval.programs import Installation, wait_for


def test_a_zip_has_the_length_that_was_said_while_its_files_grow(
    installation: Installation, port: int, growing: DirectoryStore
) -> None:
    growing.append(a_key(), 0, a_pcap(20_000), complete=False)
    is_over = threading.Event()

    def append() -> None:
        size = growing.segment(a_key()).size
        number = 0
        while not is_over.is_set():
            number += 1
            record = a_record(FIRST_US + 10**9 + number)
            size = growing.append(a_key(), size, record, complete=False).size

    writer = threading.Thread(target=append)
    writer.start()
    try:
        for _ in range(5):
            connection = installation.connect(port)
            connection.request("GET", "/download/storefront/dns/files.zip", headers=READER)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.headers["Content-Length"] == str(len(data))
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                (name,) = archive.namelist()
                pcap = archive.read(name)
            assert pcap.startswith(a_pcap(20_000))
            assert (len(pcap) - len(a_pcap(20_000))) % len(a_record(0)) == 0
            connection.close()
    finally:
        is_over.set()
        writer.join()
        growing.close()


def test_the_audit_record_of_a_cut_answer_counts_what_was_really_sent(
    installation: Installation, port: int, growing: DirectoryStore
) -> None:
    body = b"".join(
        (a_pcap(1), *(a_record(FIRST_US + number, bytes(65536)) for number in range(1, 480)))
    )
    for begin in range(0, len(body), 2**22):
        growing.append(a_key(), begin, body[begin : begin + 2**22], complete=False)
    growing.append(a_key(), len(body), b"", complete=True)
    growing.wait_durable(a_key(), len(body), 10)
    growing.close()
    base = "/v1/namespaces/storefront/packetcaptures/dns/files"
    raw = socket.create_connection(("localhost", port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    with installation.trust.wrap_socket(raw, server_hostname="localhost") as client:
        request = f"GET {base}/web-0_eth0-{FIRST_US}.pcap HTTP/1.1\r\nHost: x\r\n"
        client.sendall(f"{request}Authorization: Bearer reader\r\n\r\n".encode())
        received = sum(len(client.recv(2**16)) for _ in range(100))
    connection = installation.connect(port)
    connection.request("GET", f"{base}/web-0_eth0-{FIRST_US}.pcap", headers=READER)
    assert connection.getresponse().read() == body
    connection.close()
    deadline = time.monotonic() + 10
    while len(installation.audit().splitlines()) < 2:
        assert time.monotonic() < deadline, installation.audit()
        time.sleep(0.02)
    records = {r["ended"]: r for r in map(json.loads, installation.audit().splitlines())}
    assert records["complete"]["bytes"] == len(body)
    assert records["complete"]["capture_uid"] == CAPTURE
    assert records["complete"]["groups"] == ["people"]
    # What lay in buffers of the network when the client went away counts as sent.
    assert received / 2 < records["cut"]["bytes"] < len(body)


def test_readers_who_do_not_read_take_one_persons_seats_and_nobody_elses(
    installation: Installation, port: int, growing: DirectoryStore
) -> None:
    growing.append(a_key(), 0, HEADER + a_record(FIRST_US, bytes(60_000)) * 200, complete=True)
    growing.close()
    installation.api.users["other", "api"] = {"username": "other"}
    asked = ("other", "get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
    installation.api.allowed.add(asked)
    path = f"/v1/namespaces/storefront/packetcaptures/dns/files/web-0_eth0-{FIRST_US}.pcap"
    with contextlib.ExitStack() as stack:

        def ask(who: str) -> tuple[http.client.HTTPSConnection, int]:
            connection = stack.enter_context(contextlib.closing(installation.connect(port)))
            connection.request("GET", path, headers={"Authorization": f"Bearer {who}"})
            return connection, connection.getresponse().status

        sitting = [ask("reader") for _ in range(PERSON_ANSWERS)]
        assert {status for _, status in sitting} == {200}
        assert ask("reader")[1] == 429
        assert ask("other")[1] == 200
        sitting[0][0].close()
        wait_for(lambda: ask("reader")[1] == 200)
