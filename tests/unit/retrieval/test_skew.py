"""All that a sidecar of the first release sends, to today's collector (tests/unit/test_skew.py)."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.builders import POD, STREAM, a_capture, a_key, a_pod
from tests.unit.retrieval.collecting import Collector, show
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.test_skew import GOLDEN, with_fields_of_later

TOKEN = "a-bound-token"


def requests() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / "requests.jsonl").read_text().splitlines()]


@pytest.fixture
def collector(store: DirectoryStore, api: FakeApi) -> Collector:
    made = Collector(store, api)
    api.add_pod_token(TOKEN, "storefront", "web-0", POD)
    api.pods["storefront", "web-0"] = a_pod()
    show(made, a_capture(endTime="2030-01-01T00:00:00Z"))
    return made


def later(headers: dict[str, str]) -> dict[str, str]:
    """The same with what a sidecar of tomorrow may add."""
    more = {"Nightcap-Later": "anything", **headers}
    if "Nightcap-Report" in headers:
        report = with_fields_of_later(json.loads(headers["Nightcap-Report"]))
        more["Nightcap-Report"] = json.dumps(report)
    return more


@pytest.mark.parametrize("change", [dict, later], ids=["as it was", "with fields of later"])
def test_a_sidecar_of_the_first_release_ships_all_and_is_told_so(
    collector: Collector, change: Any
) -> None:
    shipped: dict[str, bytes] = {}
    for request in requests():
        method, path, body = request["method"], request["path"], b64decode(request["body"])
        answer = collector.client.open(
            path, method=method, data=body, headers=change(request["headers"])
        )
        assert answer.status_code == 204, (request, answer.text)
        shipped[path] = shipped.get(path, b"") + body
        # What that sidecar reads of an answer.
        received = len(shipped[path])
        assert int(answer.headers["Upload-Offset"]) == received
        assert 0 <= int(answer.headers["Nightcap-Durable"]) <= received
        if method == "PATCH":
            assert float(answer.headers["Nightcap-Pace"]) > 0
            assert float(answer.headers["Nightcap-Until"]) == 1893456000
    segments = {Path(path).name: data for path, data in shipped.items() if "/eth0/" in path}
    assert len(segments) == 2
    for seq, data in segments.items():
        with collector.store.open(a_key(int(seq))) as reader:
            assert reader.read_at(0, 2**20) == data
    report = json.loads(collector.store.report(STREAM) or b"{}")
    assert report["report"]["shipped"] is True


def test_what_it_must_not_go_on_with_is_said_in_the_words_that_it_knows(
    collector: Collector,
) -> None:
    """403 without a right, 409 with the right offset, 410 for a capture that is gone."""
    first, *_ = (r for r in requests() if r["body"])

    def send(**changes: str) -> Any:
        return collector.client.patch(
            first["path"], data=b64decode(first["body"]), headers=first["headers"] | changes
        )

    stranger = "a-strangers-token"
    collector.api.add_pod_token(stranger, "storefront", "web-1", "90d1")
    collector.api.pods["storefront", "web-1"] = a_pod("web-1", uid="90d1", app="other")
    assert send(Authorization=f"Bearer {stranger}").status_code == 403
    ahead = send(**{"Upload-Offset": "24"})
    assert (ahead.status_code, ahead.headers["Upload-Offset"]) == (409, "0")
    show(collector)
    assert send().status_code == 410
