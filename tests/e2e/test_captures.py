"""What is asked is what is captured: objects, annotations, ends, and bad input."""

import json
import time

import pytest

from demo.files import Retrieval
from demo.installation import NAMESPACE
from demo.kubectl import KubectlError, wait_for
from tests.e2e.shop import CONTROLLER, ORDERS, Shop


def _udp_payloads(shop: Shop, retrieval: Retrieval, capture: str, token: str) -> list[str]:
    files = shop.files(retrieval, capture, token)
    return [
        bytes(packet["UDP"].payload).decode()
        for file in files
        for packet in file.packets
        if "UDP" in packet
    ]


def test_filter_records_what_it_names_and_nothing_else(shop: Shop, retrieval: Retrieval) -> None:
    shop.start(shop.pod("web"))
    rules = [{"protocol": "UDP", "ports": [7000, "7002:7003"]}]
    shop.create(shop.capture("some", filters=rules))
    shop.wait_open("some")
    for port in (7000, 7001, 7002, 7003, 7004):
        shop.send_udp("web", "192.0.2.1", port, [str(port)])
    token = shop.person("analyst", "nightcap-files")
    found = wait_for(
        "three packets",
        lambda: _three(_udp_payloads(shop, retrieval, "some", token)),
        30,
    )
    assert found == ["7000", "7002", "7003"]


def _three(found: list[str]) -> list[str] | None:
    return found if len(found) >= 3 else None


def test_capture_ends_by_itself_and_keeps_its_files(shop: Shop, retrieval: Retrieval) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("short", filter="udp port 7000", duration="8s"))
    shop.wait_open("short")
    shop.send_udp("web", "192.0.2.1", 7000, ["in time"])
    shop.wait_phase("short", "Finished")
    shop.send_udp("web", "192.0.2.1", 7000, ["too late"])
    token = shop.person("analyst", "nightcap-files")
    assert _udp_payloads(shop, retrieval, "short", token) == ["in time"]
    # What is shipped needs no orders any more.
    wait_for("the end of the orders", lambda: shop.orders("web") is None, 30)


def test_suspend_stops_it_and_resuming_goes_on(shop: Shop, retrieval: Retrieval) -> None:
    """Also after its orders have gone: the sidecar keeps what it has counted."""
    shop.start(shop.pod("web"))
    shop.create(shop.capture("pausing", filter="udp port 7000"))
    shop.wait_open("pausing")
    shop.send_udp("web", "192.0.2.1", 7000, ["first"])
    shop.run("patch", "pcap", "pausing", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    shop.wait_phase("pausing", "Finished")
    wait_for("the end of the orders", lambda: shop.orders("web") is None, 30)
    shop.send_udp("web", "192.0.2.1", 7000, ["unseen"])
    shop.run("patch", "pcap", "pausing", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    wait_for("the capture to go on", lambda: shop.status("pausing").get("phase") != "Finished", 30)
    shop.wait_open("pausing")
    shop.send_udp("web", "192.0.2.1", 7000, ["second"])
    token = shop.person("analyst", "nightcap-files")
    wait_for(
        "both packets",
        lambda: "second" in _udp_payloads(shop, retrieval, "pausing", token),
        30,
    )
    assert _udp_payloads(shop, retrieval, "pausing", token) == ["first", "second"]
    wait_for("both counted", lambda: shop.status("pausing").get("packets") == 2, 30)


def test_deleting_a_capture_stops_it_and_takes_its_files(shop: Shop, retrieval: Retrieval) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("gone", filter="udp port 7000"))
    shop.wait_open("gone")
    shop.send_udp("web", "192.0.2.1", 7000, ["packet"])
    token = shop.person("analyst", "nightcap-files")
    wait_for("its file", lambda: _udp_payloads(shop, retrieval, "gone", token), 30)
    shop.run("delete", "pcap", "gone")
    assert shop.zip(retrieval, "gone", token).status == 404
    wait_for("the end of the orders", lambda: shop.orders("web") is None, 10)
    # A name means the live object: made again, it starts empty.
    shop.create(shop.capture("gone", filter="udp port 7000"))
    assert _udp_payloads(shop, retrieval, "gone", token) == []


def test_annotated_namespace_captures_all_its_pods(shop: Shop, retrieval: Retrieval) -> None:
    shop.start(shop.pod("one"), shop.pod("two"))
    shop.run(
        "annotate", "namespace", shop.name, "nightcap.dev/capture=on",
        "nightcap.dev/filter=udp port 7000", "nightcap.dev/duration=10m",
    )  # fmt: skip
    wait_for("a capture of that name", lambda: shop.get("pcap", "namespace"), 30)
    shop.wait_open("namespace", pods=2)
    shop.send_udp("one", "192.0.2.1", 7000, ["from one"])
    shop.send_udp("two", "192.0.2.1", 7000, ["from two"])
    token = shop.person("analyst", "nightcap-files")
    wait_for(
        "both packets",
        lambda: len(_udp_payloads(shop, retrieval, "namespace", token)) == 2,
        30,
    )
    shop.run("annotate", "namespace", shop.name, "nightcap.dev/capture=off", "--overwrite")
    shop.wait_phase("namespace", "Finished")
    assert shop.get("pcap", "namespace")["spec"]["suspend"] is True


def test_annotated_pod_starts_and_stops_by_its_annotation(shop: Shop) -> None:
    shop.start(shop.pod("web"))
    shop.run("annotate", "pod", "web", "nightcap.dev/capture=on")
    wait_for("a capture of that name", lambda: shop.get("pcap", "pod-web"), 30)
    shop.wait_open("pod-web")
    assert shop.get("pcap", "pod-web")["metadata"]["labels"]["nightcap.dev/source"] == "pod"
    shop.run("annotate", "pod", "web", "nightcap.dev/capture-")
    shop.wait_phase("pod-web", "Finished")
    shop.run("annotate", "pod", "web", "nightcap.dev/capture=on")
    wait_for("it to go on", lambda: shop.status("pod-web").get("phase") != "Finished", 30)


def test_pods_without_sidecar_are_counted_and_explained(shop: Shop) -> None:
    shop.start(shop.pod("web"), shop.pod("shy", labels={"nightcap.dev/inject": "disabled"}))
    shop.create(shop.capture("all"))
    shop.wait_open("all")
    pods = wait_for(
        "the pod without sidecar in the status",
        lambda: _counted(shop.status("all").get("pods", {})),
        30,
    )
    assert pods["matching"] == 2
    said = json.dumps(shop.status("all")["conditions"])
    assert "shy" in said


def _counted(pods: dict[str, int]) -> dict[str, int] | None:
    return pods if pods.get("withoutSidecar") == 1 else None


# Bad input.


def test_filter_that_does_not_compile_is_refused_in_libpcaps_words(shop: Shop) -> None:
    capture = shop.capture("bad", filter="udp port port")
    said = shop.refused("create", "-f", "-", stdin=json.dumps(capture))
    assert "syntax error" in said
    capture = shop.capture("bad", filter="host www.example.com")
    assert "not looked up" in shop.refused("create", "-f", "-", stdin=json.dumps(capture))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"duration": "-5m"}, "spec.duration", id="negative duration"),
        pytest.param({"snapLength": 0}, "spec.snapLength", id="no bytes"),
        pytest.param(
            {"filter": "tcp", "filters": [{"protocol": "TCP"}]}, "not both", id="two filters"
        ),
        pytest.param(
            {"startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z"},
            "endTime must be after startTime",
            id="ends before it starts",
        ),
        pytest.param({"filters": [{"protocol": "TCP", "ports": ["99999"]}]}, "65535", id="port"),
    ],
)
def test_bad_spec_is_refused_with_the_rule(shop: Shop, spec: dict[str, object], said: str) -> None:
    refusal = shop.refused("create", "-f", "-", stdin=json.dumps(shop.capture("bad", **spec)))
    assert said in refusal


def test_unknown_annotation_value_is_an_event_that_quotes_it(shop: Shop) -> None:
    shop.start(shop.pod("web"))
    shop.run("annotate", "pod", "web", "nightcap.dev/capture=please")
    assert "'please'" in shop.event("web", "please")["note"]


def test_bad_option_is_an_event_and_a_condition_and_disturbs_nothing(shop: Shop) -> None:
    shop.start(shop.pod("web"))
    shop.run("annotate", "pod", "web", "nightcap.dev/capture=on", "nightcap.dev/duration=10m")
    wait_for("a capture of that name", lambda: shop.get("pcap", "pod-web"), 30)
    shop.wait_open("pod-web")
    shop.run("annotate", "pod", "web", "nightcap.dev/duration=-1h", "--overwrite")
    assert "-1h" in shop.event("web", "-1h")["note"]
    wait_for(
        "a condition that quotes it",
        lambda: "-1h" in json.dumps(shop.status("pod-web").get("conditions", [])),
        30,
    )
    assert shop.get("pcap", "pod-web")["spec"]["duration"] == "10m"
    assert shop.status("pod-web")["pods"]["capturing"] == 1


def test_annotated_filter_that_does_not_compile_is_an_event_in_libpcaps_words(shop: Shop) -> None:
    shop.start(shop.pod("web"))
    shop.run("annotate", "pod", "web", "nightcap.dev/capture=on", "nightcap.dev/filter=udp port")
    assert "syntax error" in shop.event("web", "syntax error")["note"]


def test_annotation_beyond_its_namespaces_ceiling_is_an_event_that_names_the_rule(
    shop: Shop,
) -> None:
    shop.start(shop.pod("web"))
    ceiling = {
        "apiVersion": "nightcap.dev/v1alpha1",
        "kind": "CaptureCeiling",
        "metadata": {"name": shop.name, "namespace": NAMESPACE},
        "spec": {"namespaces": [shop.name], "maxDuration": "1h"},
    }
    shop.kubectl.run("create", "-f", "-", stdin=json.dumps(ceiling))
    try:
        wait_for("the ceiling to hold", lambda: _refuses_two_hours(shop), 30)
        shop.run("annotate", "pod", "web", "nightcap.dev/capture=on", "nightcap.dev/duration=2h")
        event = shop.event("web", "maxDuration: ")
        assert event["reason"] == "CaptureRefused"
        assert f"ceiling {shop.name}" in event["note"]
        # Mended, it runs.
        shop.run("annotate", "pod", "web", "nightcap.dev/duration=30m", "--overwrite")
        shop.wait_open("pod-web")
    finally:
        shop.kubectl.run("-n", NAMESPACE, "delete", "captureceilings", shop.name)


def _refuses_two_hours(shop: Shop) -> bool:
    manifest = json.dumps(shop.capture("long", duration="2h"))
    try:
        shop.run("create", "--dry-run=server", "-f", "-", stdin=manifest)
    except KubectlError as error:
        return "maxDuration: " in str(error)
    return False


def test_garbage_in_the_orders_harms_nothing_and_is_mended(
    shop: Shop, retrieval: Retrieval
) -> None:
    shop.start(shop.pod("web"))
    shop.create(shop.capture("steady", filter="udp port 7000"))
    shop.wait_open("steady")
    shop.patch_status("web", {ORDERS: "no JSON at all"}, user=CONTROLLER)
    wait_for("orders that are mended", lambda: _is_json(shop.annotations("web")), 10)
    time.sleep(1)
    shop.send_udp("web", "192.0.2.1", 7000, ["still here"])
    token = shop.person("analyst", "nightcap-files")
    wait_for(
        "the packet", lambda: _udp_payloads(shop, retrieval, "steady", token) == ["still here"], 30
    )


def _is_json(annotations: dict[str, str]) -> bool:
    try:
        return isinstance(json.loads(annotations.get(ORDERS, "")), dict)
    except ValueError:
        return False
