import base64
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from nightcap.contract.captures import PacketCapture, parse_capture
from nightcap.kube.reviews import TokenReviewer
from retrieval.collector.admission import Admission, live_pod
from retrieval.collector.app import CollectorApp, Parties
from retrieval.collector.captures import Captures, live_list
from retrieval.collector.janitor import Janitor
from retrieval.collector.reports import ReportIndex
from retrieval.collector.tokens import SidecarTokens
from retrieval.retention import SLACK_BYTES
from retrieval.store.base import Store, Tally
from tests.unit.retrieval.builders import (
    CAPTURE,
    HEADER,
    POD,
    STREAM,
    a_capture,
    a_key,
    a_pcap,
    a_pod,
    a_record,
    a_report,
    names_in,
)
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.s3 import S3Server

TOKEN = "sidecar-of-web-0"
PATH = f"/v1/captures/{CAPTURE}/eth0/1"


class Watched:
    """A watch that shows what it is given; empty it is one that lags."""

    def __init__(self) -> None:
        self.captures: list[PacketCapture] = []

    def show(self, *captures: dict[str, Any]) -> None:
        self.captures = [parse_capture(json.dumps(capture).encode()) for capture in captures]

    def by_uid(self, uid: str) -> PacketCapture | None:
        return next((c for c in self.captures if c.metadata.uid == uid), None)

    def items(self) -> tuple[PacketCapture, ...]:
        return tuple(self.captures)


STORE_BYTES = 2**20


class Collector:
    """The application over a real store and an API that tests write."""

    def __init__(self, store: Store, api: FakeApi) -> None:
        self.store, self.api = store, api
        self.watch = Watched()
        self.captures = Captures(self.watch, live_list(api.client))
        self.reports = ReportIndex(store, boot_id="boot")
        self.janitor = Janitor(store, self.captures, self.reports, limit_bytes=STORE_BYTES)
        self.ready = True
        reviewer = TokenReviewer(api.client, ttl_seconds=0)
        app = CollectorApp(
            store,
            SidecarTokens(lambda token: reviewer.review(token, ("nightcap",))),
            Admission(self.captures, live_pod(api.client), store),
            self.reports,
            Parties(
                person=reviewer.review,
                may_read_reports=lambda who: who.username == "controller",
                is_ready=lambda: self.ready,
                is_full=lambda: self.janitor.is_full,
            ),
        )
        self.client = Client(app)

    def patch(
        self,
        body: bytes = b"",
        offset: int | str = 0,
        *,
        path: str = PATH,
        complete: bool = False,
        token: str = TOKEN,
        **headers: str,
    ) -> TestResponse:
        sent = {
            "Authorization": f"Bearer {token}",
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1" if complete else "?0",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.patch(path, data=body, headers=sent)

    def head(self, path: str = PATH, token: str = TOKEN) -> TestResponse:
        return self.client.head(path, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def collector(store: Store, api: FakeApi) -> Collector:
    """One capture that selects one pod, known to the watch."""
    made = Collector(store, api)
    api.add_pod_token(TOKEN, "storefront", "web-0", POD)
    api.users["controller-token", "api"] = {"username": "controller"}
    api.users["nosy-token", "api"] = {"username": "nosy"}
    api.pods["storefront", "web-0"] = a_pod()
    show(made, a_capture(endTime="2030-01-01T00:00:00Z"))
    return made


def show(collector: Collector, *captures: dict[str, Any]) -> None:
    collector.api.captures = list(captures)
    collector.watch.show(*captures)


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


# Who may append.


@pytest.mark.parametrize("token", ["", "stranger", "controller-token", "bad token"])
def test_only_tokens_for_us_are_known(collector: Collector, token: str) -> None:
    assert collector.patch(a_pcap(), token=token).status_code == 401
    assert collector.head(token=token).status_code == 401


def test_a_token_that_is_bound_to_no_pod_may_nothing(collector: Collector) -> None:
    name = "system:serviceaccount:storefront:default"
    collector.api.users["unbound", "nightcap"] = {"username": name}
    answer = collector.patch(a_pcap(), token="unbound")
    assert (answer.status_code, "not bound to a pod" in answer.text) == (403, True)


def test_a_pod_that_the_capture_does_not_select_is_refused_until_it_does(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.collector.admission.REFUSAL_SECONDS", 0.05)
    collector.api.pods["storefront", "web-0"] = a_pod(app="mail")
    answer = collector.patch(a_pcap())
    assert (answer.status_code, "does not select pod web-0" in answer.text) == (403, True)
    asked = len(collector.api.asked)
    assert collector.patch(a_pcap()).status_code == 403
    assert len(collector.api.asked) == asked  # a no holds for a moment
    assert not collector.store.has_stream(STREAM)
    collector.api.pods["storefront", "web-0"] = a_pod()
    time.sleep(0.06)
    assert collector.patch(a_pcap()).status_code == 204


def test_a_stream_goes_on_when_its_pod_changes_or_is_gone(collector: Collector) -> None:
    assert collector.patch(a_pcap()).status_code == 204
    del collector.api.pods["storefront", "web-0"]
    assert collector.patch(b"more", len(a_pcap())).status_code == 204


@pytest.mark.parametrize("pod", [None, a_pod(uid="90d00000-0000-4000-8000-00000000dead")])
def test_a_pod_that_is_gone_or_another_one_begins_no_stream(
    collector: Collector, pod: dict[str, Any] | None
) -> None:
    collector.api.pods = {("storefront", "web-0"): pod} if pod else {}
    assert collector.patch(a_pcap()).status_code == 403


def test_another_pods_stream_is_out_of_reach(collector: Collector) -> None:
    """The same path with another pod's token is another pod's segment."""
    other = "90d00000-0000-4000-8000-000000000002"
    collector.api.add_pod_token("other", "storefront", "web-1", other)
    collector.api.pods["storefront", "web-1"] = a_pod("web-1", other)
    collector.patch(a_pcap())
    assert collector.head(token="other").headers["Upload-Offset"] == "0"
    assert collector.patch(b"more", len(a_pcap()), token="other").status_code == 409
    assert collector.patch(a_pcap(9), token="other").status_code == 204
    assert collector.head().headers["Upload-Offset"] == str(len(a_pcap()))


def test_a_capture_of_another_namespace_is_as_one_that_does_not_exist(
    collector: Collector,
) -> None:
    collector.api.add_pod_token("elsewhere", "mail", "web-0", POD)
    collector.api.pods["mail", "web-0"] = a_pod()
    there = collector.patch(a_pcap(), token="elsewhere")
    nowhere = collector.patch(a_pcap(), token="elsewhere", path="/v1/captures/abc/eth0/1")
    assert there.status_code == nowhere.status_code == 410
    assert there.text.replace(CAPTURE, "abc") == nowhere.text


def test_a_deleted_capture_is_gone_only_when_the_api_server_says_so(
    collector: Collector,
) -> None:
    collector.patch(a_pcap())
    collector.watch.show()  # the watch lags or was restarted
    assert collector.patch(b"more", len(a_pcap())).status_code == 204
    collector.api.is_down = True
    answer = collector.patch(b"more", len(a_pcap()) + 4)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    collector.api.is_down = False
    collector.api.captures = []
    assert collector.patch(b"more", len(a_pcap()) + 4).status_code == 410


def test_while_the_api_is_down_a_known_sidecar_goes_on_and_an_unknown_one_comes_later(
    collector: Collector,
) -> None:
    collector.patch(a_pcap())
    collector.api.is_down = True
    assert collector.patch(b"more", len(a_pcap())).status_code == 204
    assert collector.patch(a_pcap(), token="unseen").status_code == 503


def test_a_tokens_review_is_remembered_until_it_expires(collector: Collector) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 1.5}).encode()).decode()
    token = f"e30.{claims.rstrip('=')}.c2ln"
    collector.api.add_pod_token(token, "storefront", "web-0", POD)
    assert collector.head(token=token).status_code == 204
    collector.api.users.clear()
    assert collector.head(token=token).status_code == 204
    time.sleep(1.55)
    assert collector.head(token=token).status_code == 401


# What the capture says.


def test_a_suspended_captures_end_is_in_the_past_by_every_clock(collector: Collector) -> None:
    show(collector, a_capture(suspend=True))
    answer = collector.patch(a_pcap())
    assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "0")


def test_a_spec_that_cannot_be_understood_sets_no_end(collector: Collector) -> None:
    show(collector, a_capture(duration="a fortnight"))
    answer = collector.patch(a_pcap())
    assert answer.status_code == 204
    assert "Nightcap-Until" not in answer.headers


def test_at_its_limit_a_capture_ends_and_what_was_recorded_is_still_taken(
    collector: Collector,
) -> None:
    show(collector, a_capture(limits={"maxSize": 1000}, endTime="2030-01-01T00:00:00Z"))
    answer = collector.patch(HEADER + bytes(976))
    assert answer.headers["Nightcap-Until"] == "1893456000"
    answer = collector.patch(bytes(100), 1000)
    assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "0")
    assert collector.head().headers["Nightcap-Until"] == "0"


def test_far_above_its_limit_a_capture_is_refused(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SLACK_BYTES == 64 * 2**20
    monkeypatch.setattr("retrieval.retention.SLACK_BYTES", 500)
    show(collector, a_capture(limits={"maxSize": 1000}))
    assert collector.patch(HEADER + bytes(1400)).status_code == 204
    answer = collector.patch(bytes(100), 1424)
    assert (answer.status_code, "limits.maxSize" in answer.text) == (507, True)
    assert answer.headers["Nightcap-Until"] == "0"
    assert collector.patch(b"", 1424).status_code == 204  # a heartbeat brings its report


def test_a_ring_drops_its_oldest_complete_segment(collector: Collector) -> None:
    show(
        collector,
        a_capture(
            limits={"maxSize": 1000, "whenFull": "DropOldest"}, endTime="2030-01-01T00:00:00Z"
        ),
    )
    for seq in range(1, 5):
        path = f"/v1/captures/{CAPTURE}/eth0/{seq}"
        answer = collector.patch(HEADER + bytes(376), path=path, complete=True)
        assert (answer.status_code, answer.headers["Nightcap-Until"]) == (204, "1893456000")
    kept = [segment.key.seq for segment in collector.store.segments(STREAM)]
    assert kept == [3, 4]
    assert collector.store.tally(STREAM) == Tally(2, 800)


# Reports.


def reports(collector: Collector, after: str = "", who: str = "controller-token") -> Any:
    headers = {"Authorization": f"Bearer {who}"}
    answer = collector.client.get(f"/v1/reports?after={after}", headers=headers)
    return answer.json if answer.status_code == 200 else answer.status_code


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


def test_reports_are_for_those_with_the_right(collector: Collector) -> None:
    assert reports(collector, who="nosy-token") == 403
    assert reports(collector, who=TOKEN) == 401
    assert reports(collector, who="") == 401


# Health and housekeeping.


def test_health_needs_no_token_and_readiness_tells(collector: Collector) -> None:
    assert collector.client.get("/healthz").status_code == 200
    assert collector.client.get("/readyz").status_code == 200
    collector.ready = False
    assert collector.client.get("/readyz").status_code == 503


def test_a_deleted_captures_files_go_and_only_after_the_api_server_was_asked(
    collector: Collector,
) -> None:
    collector.patch(a_pcap(), Nightcap_Report=a_report())
    collector.watch.show()
    collector.janitor.tidy(time.time())  # the watch does not know it, the API server does
    assert collector.store.has_stream(STREAM)
    collector.api.captures = []
    collector.api.is_down = True
    collector.janitor.tidy(time.time())
    assert collector.store.has_stream(STREAM)
    collector.api.is_down = False
    collector.janitor.tidy(time.time())
    assert list(collector.store.captures()) == []
    assert reports(collector)["reports"] == []


def test_above_the_stores_limit_finished_captures_go_and_running_ones_wait(
    collector: Collector,
) -> None:
    other = "ca9a0000-0000-4000-8000-000000000002"
    path = f"/v1/captures/{other}/eth0/1"
    record = a_record(1, bytes(60_000))
    body = HEADER + record * (STORE_BYTES // 2 // len(record) + 1)
    show(collector, a_capture(), a_capture("old", other))
    collector.patch(body, complete=True)
    collector.patch(body, path=path, complete=True)
    collector.store.wait_durable(a_key(), len(body), 5)
    collector.janitor.tidy(time.time())
    # Both run: nothing goes, and no more is taken, but a heartbeat is.
    assert collector.patch(record, len(body)).status_code == 507
    assert collector.patch(path=PATH.replace("/1", "/2")).status_code == 204
    assert len(collector.store.segments(STREAM)) == 1
    show(collector, a_capture(), a_capture("old", other, phase="Finished"))
    collector.janitor.tidy(time.time())
    assert collector.store.segments(replace(STREAM, capture=other)) == ()
    assert len(collector.store.segments(STREAM)) == 1
    assert collector.patch(body, path=PATH.replace("/1", "/3")).status_code == 204


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
    monkeypatch.setattr("retrieval.collector.app.ADDRESS_SECONDS", 0.0)
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
