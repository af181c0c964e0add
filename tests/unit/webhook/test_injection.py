"""The patch: orders, copies, room, and what each profile is."""

import json
from dataclasses import replace

import msgspec
import pytest

from nightcap.contract import keys, paths
from nightcap.contract.assignment import orders_of_new_pod
from nightcap.contract.orders import CaptureOrder, Orders, dump_orders, parse_orders
from tests.unit.webhook.admitting import CAPTURE, admit, decide_on
from tests.unit.webhook.builders import (
    COLLECTORS,
    NAMESPACE,
    NOW,
    SIZES,
    TEMPLATE,
    a_capture,
    a_container,
    a_pod,
    apply,
    look,
    resolved,
)
from webhook.eligibility import Inject
from webhook.facts import NamespaceFacts, NotAPod, read_pod
from webhook.injection import MAX_ANNOTATIONS_BYTES, has_room, inject, orders_value, strip
from webhook.resources import QualityOfService, quality_of_service, sidecar_resources
from webhook.shape import Level, Profile


def test_a_new_pod_gets_the_orders_that_the_contract_says_and_the_sidecar_can_read():
    pod, outcome = admit(a_pod(), captures=(CAPTURE,))
    value = pod["metadata"]["annotations"][keys.ORDERS]
    meta = msgspec.structs.replace(look(a_pod()).meta, namespace=NAMESPACE)
    assert value == dump_orders(orders_of_new_pod(meta, [CAPTURE], COLLECTORS, NOW))
    orders = parse_orders(value)
    assert orders.collectors == COLLECTORS
    assert [entry.id for entry in orders.captures] == outcome.facts["captures"]
    hook = pod["spec"]["initContainers"][0]["lifecycle"]
    assert hook == {"postStart": {"exec": {"command": ["/nightcap/dormant", "--wait", "3s"]}}}


@pytest.mark.parametrize(
    "capture",
    [
        a_capture(suspend=True),
        a_capture(duration="30s"),
        a_capture(namespace="other"),
        a_capture(labels={"app": "frontend"}),
    ],
    ids=["suspended", "over", "other-namespace", "other-label"],
)
def test_a_capture_that_is_not_this_pods_gives_no_orders_and_no_hook(capture):
    pod, _ = admit(a_pod(), captures=(resolved(capture),))
    assert keys.ORDERS not in pod["metadata"]["annotations"]
    assert "lifecycle" not in pod["spec"]["initContainers"][0]


def test_without_a_wait_there_is_no_hook_but_there_are_orders():
    template = replace(TEMPLATE, wait="")
    view = look(a_pod())
    resources = sidecar_resources(view, SIZES, NamespaceFacts(NAMESPACE))
    pod = apply(a_pod(), inject(view, template, Profile.STRICT, resources, "{}"))
    assert keys.ORDERS in pod["metadata"]["annotations"]
    assert "lifecycle" not in pod["spec"]["initContainers"][0]


def test_a_copy_of_an_injected_pod_loses_its_originals_orders():
    original, _ = admit(a_pod(), captures=(CAPTURE,))
    copy, outcome = admit(original)
    assert outcome.reason == "already-injected"
    assert keys.ORDERS not in copy["metadata"]["annotations"]
    assert keys.INJECTED in copy["metadata"]["annotations"]


def test_a_copy_names_the_release_and_profile_that_it_carries():
    original, _ = admit(a_pod(), Level.BASELINE)
    sidecar = original["spec"]["initContainers"][0]
    next(v for v in sidecar["env"] if v["name"] == paths.ENV_RELEASE)["value"] = "0.9.0"
    original["metadata"]["annotations"][keys.INJECTED] = "forged"
    copy, _ = admit(original)
    injected = json.loads(copy["metadata"]["annotations"][keys.INJECTED])
    assert injected == {"release": "0.9.0", "orders": 1, "profile": "baseline"}


def test_a_capture_that_starts_between_two_calls_reaches_the_pod_with_its_hook():
    first, _ = admit(a_pod())
    second, outcome = admit(first, captures=(CAPTURE,))
    assert outcome.decision == "kept"
    assert keys.ORDERS in second["metadata"]["annotations"]
    assert "postStart" in second["spec"]["initContainers"][0]["lifecycle"]


def test_a_restart_policy_that_another_webhook_stripped_is_put_back():
    """aws/amazon-eks-pod-identity-webhook#208 and five more: the pod would never start."""
    pod, _ = admit(a_pod(initContainers=[a_container("migrate")]))
    del pod["spec"]["initContainers"][0]["restartPolicy"]
    pod["spec"]["initContainers"].insert(0, a_container("mesh-init"))
    mended, _ = admit(pod)
    names = [c["name"] for c in mended["spec"]["initContainers"]]
    assert names == ["mesh-init", "nightcap", "migrate"]
    assert mended["spec"]["initContainers"][1]["restartPolicy"] == "Always"


def entry(number, expression=""):
    return CaptureOrder(
        id=f"{number:08x}", namespace=NAMESPACE, name="c" * 60, until=10**9, filter=expression
    )


def test_orders_that_do_not_fit_are_cut_to_what_a_sidecar_reads():
    many = Orders(COLLECTORS, tuple(entry(n) for n in range(100)))
    assert len(parse_orders(orders_value(look(a_pod()), TEMPLATE, many)).captures) == 64
    long = Orders(COLLECTORS, tuple(entry(n, "x" * 1024) for n in range(64)))
    value = orders_value(look(a_pod()), TEMPLATE, long)
    kept = parse_orders(value).captures
    assert 0 < len(kept) < 64
    assert kept == long.captures[: len(kept)]


@pytest.mark.parametrize("left", [0, 40, 200, 1000, 10_000])
def test_annotations_never_grow_beyond_what_the_api_server_takes(left):
    full = a_pod(meta={"annotations": {"a": "b" * (MAX_ANNOTATIONS_BYTES - left - 1)}})
    result, outcome = admit(full, captures=(CAPTURE,))
    size = sum(len(k) + len(v) for k, v in result["metadata"]["annotations"].items())
    assert size <= MAX_ANNOTATIONS_BYTES
    assert outcome.decision == ("injected" if left >= 200 else "skipped")
    assert has_room(look(full), TEMPLATE) == (left >= 200)


def test_nothing_is_stripped_from_a_pod_that_carries_nothing_of_ours():
    assert strip(look(a_pod(meta={"annotations": {"team": "x"}}))) == ()


@pytest.mark.parametrize(("left", "is_told"), [(0, False), (30, False), (100, True)])
def test_why_a_pod_was_left_is_not_written_where_there_is_no_room(left, is_told):
    full = a_pod(meta={"annotations": {"a": "b" * (MAX_ANNOTATIONS_BYTES - left - 1)}})
    assert bool(strip(look(full), "injection-off")) is is_told


def test_what_is_no_pod_is_said_to_be_none():
    for text in (b"null", b"[]", b"{}", b'{"spec": {"containers": 3}}', b"\xff", b'{"spec": 1'):
        with pytest.raises(NotAPod):
            read_pod(text)


def test_the_profile_of_each_level_is_what_is_written():
    strict, _ = admit(a_pod())
    baseline, _ = admit(a_pod(), Level.BASELINE)
    of = lambda pod: pod["spec"]["initContainers"][0]["securityContext"]  # noqa: E731
    assert of(strict)["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    dropped = of(baseline)["capabilities"]
    assert set(dropped) == {"drop"}
    assert len(dropped["drop"]) == 13
    assert not {"NET_RAW", "ALL"} & set(dropped["drop"])
    assert {**of(strict), "capabilities": 0} == {**of(baseline), "capabilities": 0}


def test_a_guaranteed_pod_stays_one():
    full = {"cpu": "1", "memory": "1Gi"}
    pod = a_pod(containers=[a_container(resources={"requests": full, "limits": full})])
    assert quality_of_service(look(admit(pod)[0])) == QualityOfService.GUARANTEED


def test_an_ordinary_pod_is_injected_at_all():
    assert isinstance(decide_on(a_pod(), Level.PRIVILEGED), Inject)
