"""Which pods the collector takes segments from, and who may read their reports."""

import base64
import json
import time
from typing import Any

import pytest

from tests.unit.retrieval.builders import (
    CAPTURE,
    POD,
    STREAM,
    a_pcap,
    a_pod,
)
from tests.unit.retrieval.collecting import TOKEN, Collector, reports


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
    assert float(answer.headers["Nightcap-Pace"]) == max(2, collector.store.pace_seconds)
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


def test_reports_are_for_those_with_the_right(collector: Collector) -> None:
    assert reports(collector, who="nosy-token") == 403
    assert reports(collector, who=TOKEN) == 401
    assert reports(collector, who="") == 401
