"""Appends, reports and addresses."""

import time

import pytest

from retrieval.store.base import Tally
from tests.unit.retrieval.builders import (
    CAPTURE,
    HEADER,
    POD,
    STREAM,
    a_key,
    a_pcap,
    a_pod,
    a_report,
    names_in,
)
from tests.unit.retrieval.collecting import PATH, Collector, reports
from tests.unit.retrieval.s3 import S3Server


def test_appends_are_answered_with_what_is_received_and_durable(collector: Collector) -> None:
    pcap = a_pcap()
    first = collector.patch(pcap[:100])
    assert first.status_code == 204
    assert first.headers["Upload-Offset"] == "100"
    # No answer waits for the disk while a segment grows: it tells what is safe so far.
    assert int(first.headers["Nightcap-Durable"]) <= 100
    assert collector.store.wait_durable(a_key(), 100, 5) == 100
    assert collector.head().headers["Nightcap-Durable"] == "100"
    assert first.headers["Nightcap-Pace"] == f"{collector.store.pace_seconds:g}"
    assert first.headers["Nightcap-Until"] == "1893456000"
    second = collector.patch(pcap[100:], 100, complete=True)
    assert second.status_code == 204
    assert second.headers["Nightcap-Durable"] == str(len(pcap))
    with collector.store.open(a_key()) as reader:
        assert reader.read_at(0, 2**20) == pcap


def test_head_tells_how_far_a_segment_is(collector: Collector) -> None:
    unknown = collector.head()
    assert (unknown.status_code, unknown.headers["Upload-Offset"]) == (204, "0")
    assert not collector.store.has_stream(STREAM)
    collector.patch(a_pcap(), complete=True)
    known = collector.head()
    size = str(len(a_pcap()))
    assert known.headers["Upload-Offset"] == known.headers["Nightcap-Durable"] == size
    assert known.headers["Upload-Complete"] == "?1"


def test_a_wrong_offset_is_answered_with_the_right_one(collector: Collector) -> None:
    collector.patch(a_pcap())
    size = str(len(a_pcap()))
    for offset in (0, 1, len(a_pcap()) + 1):
        answer = collector.patch(b"more", offset)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, size)
    collector.patch(b"", len(a_pcap()), complete=True)
    answer = collector.patch(b"more", len(a_pcap()))
    assert (answer.status_code, answer.headers["Upload-Complete"]) == (409, "?1")
    assert collector.patch(b"", len(a_pcap()), complete=True).status_code == 204


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param(PATH, {"Upload_Offset": "-1"}, 400, id="negative offset"),
        pytest.param(PATH, {"Upload_Offset": "9" * 30}, 400, id="huge offset"),
        pytest.param(PATH, {"Upload_Offset": "0x10"}, 400, id="offset in hexadecimal"),
        pytest.param(PATH, {"Upload_Complete": "yes"}, 400, id="no boolean"),
        pytest.param(PATH, {"Nightcap_Report": "{"}, 400, id="report is no JSON"),
        pytest.param(PATH, {"Nightcap_Report": "x" * 5000}, 400, id="report is too long"),
        pytest.param(PATH, {"Transfer_Encoding": "chunked"}, 411, id="chunks"),
        pytest.param("/v1/captures/../eth0/1", {}, 400, id="two dots as capture"),
        pytest.param(f"/v1/captures/{CAPTURE}/..%2f..%2fx/1", {}, 400, id="encoded slashes"),
        pytest.param(f"/v1/captures/{CAPTURE}/%2e%2e/1", {}, 400, id="two dots as interface"),
        pytest.param(f"/v1/captures/{CAPTURE}/%ff/1", {}, 400, id="no UTF-8"),
        pytest.param(f"/v1/captures/{CAPTURE}/%00/1", {}, 400, id="zero byte"),
        pytest.param(f"/v1/captures/{CAPTURE}/eth0/1/2", {}, 400, id="one part too many"),
        pytest.param(f"/v1/captures/{CAPTURE}/eth0/-1", {}, 400, id="negative number"),
        pytest.param(f"/v1/captures/{CAPTURE}/meta.json/1", {}, 400, id="a file of the store"),
        pytest.param("/v2/captures", {}, 404, id="another version"),
        pytest.param("/", {}, 404, id="the root"),
    ],
)
def test_a_malformed_request_is_refused_and_keeps_nothing(
    collector: Collector, path: str, headers: dict[str, str], status: int
) -> None:
    answer = collector.patch(a_pcap(), path=path, **headers)
    assert answer.status_code == status, answer.text
    assert answer.text.endswith("\n")
    assert collector.store.tally(STREAM) == Tally()
    assert names_in(collector.store) <= {f"{STREAM.path}/meta.json"}


def test_a_first_body_that_is_no_pcap_is_refused(collector: Collector) -> None:
    for body in (b"GET / HTTP/1.1", HEADER[:23], b"\n\r\r\n" + HEADER):
        answer = collector.patch(body)
        assert answer.status_code == 400
        assert "pcap header" in answer.text
    assert collector.patch(HEADER).status_code == 204


def test_a_body_above_four_mebibytes_is_refused_before_it_is_read(collector: Collector) -> None:
    assert collector.patch(HEADER + bytes(2**22 - 24)).status_code == 204
    answer = collector.patch(bytes(2**22 + 1), 2**22)
    assert answer.status_code == 413
    assert collector.head().headers["Upload-Offset"] == str(2**22)


def test_a_heartbeat_stores_its_report_and_makes_no_file(collector: Collector) -> None:
    assert collector.patch(Nightcap_Report=a_report(state="waiting")).status_code == 204
    (entry,) = reports(collector)["reports"]
    assert entry["capture"] == CAPTURE
    assert entry["namespace"] == "storefront"
    assert entry["pod"] == {"name": "web-0", "uid": POD, "node": "node-a"}
    assert entry["report"]["state"] == "waiting"
    assert entry["files"] == {"count": 0, "bytes": 0, "names": []}
    assert abs(entry["received_at"] - time.time()) < 60


def test_a_report_comes_through_also_when_the_bytes_do_not(collector: Collector) -> None:
    collector.patch(b"x", 99, Nightcap_Report=a_report(packets=5))
    assert reports(collector)["reports"][0]["report"]["packets"] == 5


def test_a_cursor_gives_only_what_changed_since(collector: Collector) -> None:
    collector.patch(a_pcap(), Nightcap_Report=a_report(seq=1))
    cursor = reports(collector)["cursor"]
    assert reports(collector, cursor)["reports"] == []
    collector.patch(Nightcap_Report=a_report(seq=1), path=PATH[:-1] + "2")
    assert reports(collector, cursor)["reports"] == []
    collector.patch(b"more", len(a_pcap()))
    (entry,) = reports(collector, cursor)["reports"]
    names = ["web-0_eth0-1700000000000000.pcap"]
    assert entry["files"] == {"count": 1, "bytes": len(a_pcap()) + 4, "names": names}
    for unknown in ("", "elsewhere.7", "boot.", "boot.x", cursor + "x"):
        assert len(reports(collector, unknown)["reports"]) == 1


def test_health_needs_no_token_and_readiness_tells(collector: Collector) -> None:
    assert collector.client.get("/healthz").status_code == 200
    assert collector.client.get("/readyz").status_code == 200
    collector.ready = False
    assert collector.client.get("/readyz").status_code == 503


def test_no_answer_leaves_its_sentence_out_or_lets_a_browser_guess(collector: Collector) -> None:
    for answer in (collector.patch(token="x"), collector.patch(path="/"), collector.patch(b"x")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.text.strip()


# Addresses, so that people see names.


def test_a_pods_addresses_are_remembered_with_its_stream(collector: Collector) -> None:
    pod = a_pod()
    pod["status"] = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    collector.api.pods["storefront", "web-0"] = pod
    collector.patch(a_pcap())
    meta = collector.store.meta(STREAM)
    assert meta is not None
    assert meta.ips == ("10.0.0.1", "fd00::1")


def test_a_pod_on_the_hosts_network_has_no_address_of_its_own(collector: Collector) -> None:
    pod = a_pod()
    pod["spec"]["hostNetwork"] = True
    pod["status"] = {"podIP": "192.0.2.1"}
    collector.api.pods["storefront", "web-0"] = pod
    collector.patch(a_pcap())
    meta = collector.store.meta(STREAM)
    assert meta is not None
    assert meta.ips == ()


def test_the_address_of_a_pod_that_records_from_its_first_packet_is_found_later(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first packets come before the kubelet has told the API server its address."""
    monkeypatch.setattr("retrieval.collector.addresses.ADDRESS_SECONDS", 0.0)
    body = a_pcap()
    collector.patch(body)
    pod = a_pod()
    pod["status"] = {"podIP": "10.0.0.1"}
    collector.api.pods["storefront", "web-0"] = pod
    for _ in range(2):
        answer = collector.patch(body[24:], collector.store.segment(a_key()).size)
        assert answer.status_code == 204
    meta = collector.store.meta(STREAM)
    assert meta is not None
    assert meta.ips == ("10.0.0.1",)
    assert meta.links == {"eth0": 1}


@pytest.mark.parametrize("place", ["objects"], indirect=True)
def test_while_the_store_is_away_sidecars_are_told_to_come_later(
    collector: Collector, s3_server: S3Server
) -> None:
    pcap = a_pcap()
    assert collector.patch(pcap[:100]).status_code == 204
    s3_server.stop()
    try:
        for answer in (collector.patch(pcap[100:], 100), collector.head()):
            assert answer.status_code == 503
            assert (answer.headers["Nightcap-Pace"], answer.headers["Retry-After"]) == ("10", "2")
        assert "s3://" not in collector.patch(pcap[100:], 100).text
    finally:
        s3_server.start()
    assert collector.patch(pcap[100:], 100, complete=True).status_code == 204
