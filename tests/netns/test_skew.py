"""Today's worker on the first release's orders, as the first collector understands it.

What follows is written down as it was then, and not read from today's contract.
"""

import json
import re
import time

import pytest

from tests.netns.collector import Collector
from tests.netns.pods import Pod, wait_for
from tests.netns.written import numbers
from tests.unit.test_skew import GOLDEN, ORDERS, with_fields_of_later

pytestmark = pytest.mark.netns

PATH = re.compile(r"/v1/captures/[0-9a-f-]{1,63}/[^/]{1,60}/[0-9]{1,8}")
STATES = {"waiting", "capturing", "finished", "failed"}


def first_requests() -> list[dict[str, str]]:
    """The headers of the first worker's appends."""
    lines = (GOLDEN / "requests.jsonl").read_text().splitlines()
    return [r["headers"] for r in map(json.loads, lines) if r["method"] == "PATCH"]


@pytest.mark.parametrize("more", [False, True], ids=["as they were", "with fields of later"])
def test_todays_worker_obeys_them_and_ships_as_then(
    shipping_pod: Pod, collector: Collector, *, more: bool
) -> None:
    orders = json.loads(ORDERS)
    (host, port) = shipping_pod.collectors[0]
    orders["collectors"] = [f"{host}:{port}"]
    orders["captures"][0]["until"] = int(time.time()) + 600
    shipping_pod.order_text(json.dumps(with_fields_of_later(orders) if more else orders))
    shipping_pod.start()
    shipping_pod.wait_open()
    capture = orders["captures"][0]["id"]
    shipping_pod.link.send(100)
    wait_for(lambda: collector.files(capture), "a segment")
    assert shipping_pod.wait_end(15) == 0
    assert numbers(*collector.files(capture).values()) == list(range(60))

    first = first_requests()
    names = {name.lower() for name in first[0]}
    fields = json.loads(first[0]["Nightcap-Report"]).keys()
    appends = [headers for method, _, headers in collector.heads if method == "PATCH"]
    assert appends
    assert all(PATH.fullmatch(path) for _, path, _ in collector.heads)
    assert {method for method, _, _ in collector.heads} <= {"PATCH", "HEAD"}
    for headers in appends:
        assert names <= {name.lower() for name in headers}
        assert re.fullmatch(r"[0-9]+", headers["Upload-Offset"])
        assert headers["Upload-Complete"] in ("?0", "?1")
        text = headers["Nightcap-Report"]
        assert len(text) <= 4096
        report = json.loads(text)
        assert fields <= report.keys()
        assert report["v"] == 1
        assert report["state"] in STATES
