"""Sidecars live for months: what the first release wrote and read means the same today.

tests/unit/retrieval/test_skew.py replays an old sidecar's uploads to today's collector, and
tests/netns/test_skew.py holds today's uploads against what the first collector knew.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import json as msgjson
from msgspec import structs

from controller.actions import PatchOrders
from controller.reconcile import reconcile
from nightcap.contract import keys
from nightcap.contract.objects import Pod
from nightcap.contract.orders import (
    CaptureOrder,
    Limit,
    Orders,
    Rotation,
    dump_orders,
    parse_orders,
)
from nightcap.contract.reports import parse_report
from tests.unit.controller import builders as controller
from tests.unit.webhook import builders as webhook
from tests.unit.webhook.admitting import admit
from webhook.shape import Level

GOLDEN = Path(__file__).parents[1] / "golden" / "skew" / "1"
ORDERS = (GOLDEN / "orders.json").read_text().strip()
MEANT = Orders(
    collectors=webhook.COLLECTORS,
    captures=(
        CaptureOrder(
            id="ca9a0000-0000-4000-8000-000000000001",
            namespace="storefront",
            name="dns",
            until=1893456000,
            filter="udp dst port 5353",
            snap=262144,
            interfaces=("eth0",),
            rotation=Rotation(10 * 2**20, 3600, 10),
            limit=Limit(2**30, 60),
        ),
    ),
)
SPEC: dict[str, Any] = {
    "filter": "udp dst port 5353",
    "interfaces": ["eth0"],
    "endTime": "2030-01-01T00:00:00Z",
    "limits": {"maxPackets": 60},
}


def pod_of_first_release(profile: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"pod-{profile}.json").read_text())
    return found


def with_fields_of_later(value: Any) -> Any:
    """The same with one more field in every object."""
    if isinstance(value, dict):
        known = {key: with_fields_of_later(part) for key, part in value.items()}
        return {"later": {"anything": [1]}, **known}
    if isinstance(value, list):
        return [with_fields_of_later(part) for part in value]
    return value


def test_orders_of_the_first_release_mean_what_they_meant() -> None:
    assert parse_orders(ORDERS) == MEANT


def test_fields_that_came_later_are_passed_over() -> None:
    assert parse_orders(json.dumps(with_fields_of_later(json.loads(ORDERS)))) == MEANT
    lines = (GOLDEN / "requests.jsonl").read_text().splitlines()
    reports = [json.loads(line)["headers"].get("Nightcap-Report") for line in lines]
    for text in filter(None, reports):
        more = json.dumps(with_fields_of_later(json.loads(text)))
        assert parse_report(more) == parse_report(text)


@pytest.mark.parametrize("profile", ["strict", "baseline"])
def test_the_controller_writes_what_the_first_sidecar_reads(profile: str) -> None:
    """Byte for byte: nobody can ask that sidecar what else it would understand."""
    old = pod_of_first_release(profile)
    old["metadata"] |= {"name": "web-1", "namespace": "storefront", "uid": "90d0"}
    old["status"] = {"phase": "Running"}
    pod = msgjson.decode(json.dumps(old), type=Pod)
    capture = controller.a_capture("dns", namespace="storefront", **SPEC)
    metadata = structs.replace(capture.metadata, uid=MEANT.captures[0].id)
    view = controller.a_view(
        [structs.replace(capture, metadata=metadata)],
        [pod],
        namespace=controller.a_namespace(name="storefront"),
        collectors=webhook.COLLECTORS,
    )
    actions = reconcile(view, controller.NOW).actions
    assert [a.value for a in actions if isinstance(a, PatchOrders)] == [ORDERS]


@pytest.mark.parametrize("profile", ["strict", "baseline"])
def test_the_webhook_keeps_a_sidecar_of_the_first_release(profile: str) -> None:
    """A copy of its pod comes as it is: its image reads what `injected` says."""
    old = pod_of_first_release(profile)
    level = Level.BASELINE if profile == "baseline" else Level.PRIVILEGED
    kept, outcome = admit(old, level)
    assert (outcome.decision, kept) == ("kept", old)
    capture = webhook.resolved(
        webhook.a_capture(uid=MEANT.captures[0].id, labels={"app": "web"}, filter="udp port 53")
    )
    old["metadata"]["labels"] = {"app": "web"}
    born, _ = admit(old, level, captures=(capture,))
    assert parse_orders(born["metadata"]["annotations"].pop(keys.ORDERS)).captures
    hook = born["spec"]["initContainers"][0].pop("lifecycle")
    assert hook["postStart"]["exec"]["command"] == ["/nightcap/dormant", "--wait", "3s"]
    assert born == old


def test_orders_are_written_as_they_were_read() -> None:
    assert dump_orders(parse_orders(ORDERS)) == ORDERS
