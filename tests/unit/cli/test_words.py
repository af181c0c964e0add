from __future__ import annotations

from typing import Any

import pytest

from nightcap.cli.words import (
    Mark,
    explain,
    human_age,
    human_size,
    list_row,
    packets_wanted,
    restarts,
    selection,
    status_rows,
)
from nightcap.contract import keys

NOW = 1_795_372_000.0  # 2026-11-22T18:26:40Z


def a_capture(
    phase: str = "Capturing", spec: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "dns",
            "namespace": "shop",
            "creationTimestamp": "2026-11-22T18:16:40Z",
        },
        "spec": spec or {},
        "status": {
            "phase": phase,
            "endTime": "2026-11-22T19:26:40Z",
            "pods": {"matching": 2, "capturing": 2},
            "packets": 7,
            "size": 2048,
            "dropped": 0,
            **status,
        },
    }


def a_condition(reason: str, message: str, status: str = "False") -> dict[str, str]:
    return {"type": "Any", "status": status, "reason": reason, "message": message}


def test_capturing_says_in_how_many_pods_and_for_how_long() -> None:
    (line,) = explain(a_capture(), NOW)
    assert line.mark is Mark.OK
    assert line.text == "it captures in 2 pods: 7 packets, 2.0 KiB, 1h left"


def test_open_without_a_packet_names_the_filter() -> None:
    capture = a_capture("WaitingForTraffic", {"filter": "udp port 53"}, packets=0)
    (line,) = explain(capture, NOW)
    assert line.mark is Mark.NOTE
    assert "no packet has matched yet (udp port 53)" in line.text
    assert "widen the filter" in line.advice


def test_nothing_captured_says_why_and_what_to_do() -> None:
    capture = a_capture(
        "WaitingForTraffic",
        pods={"matching": 2, "capturing": 0, "withoutSidecar": 2},
        conditions=[
            a_condition("PodsWithoutSidecar", "2 of 2 pods have no sidecar; a, b: restart them"),
            a_condition("NothingToReport", "no pod has to report now", "Unknown"),
            a_condition("NotEnded", "more may come"),
            a_condition("NoSkew", "no skew", "True"),
        ],
    )
    verdict, why = explain(capture, NOW)
    assert verdict.mark is Mark.FAULT
    assert verdict.text.startswith("no pod captures yet")
    assert why.text.startswith("2 of 2 pods have no sidecar")
    assert why.advice == "kubectl nightcap enable shop says which pods to restart"


def test_pods_that_are_left_out_on_purpose_are_no_fault() -> None:
    said = "1 of 3 pods have no sidecar; web-3: opted out by the pod's label"
    capture = a_capture(conditions=[a_condition("PodsLeftOut", said)])
    verdict, note = explain(capture, NOW)
    assert (verdict.mark, note.mark, note.text) == (Mark.OK, Mark.NOTE, said)
    assert "the other pods are captured" in note.advice


def test_unknown_of_a_collector_is_news_too() -> None:
    capture = a_capture(conditions=[a_condition("NoCollector", "no collector is ready", "Unknown")])
    assert [line.mark for line in explain(capture, NOW)] == [Mark.OK, Mark.FAULT]


@pytest.mark.parametrize(
    ("capture", "mark", "text"),
    [
        pytest.param(a_capture("Finished"), Mark.OK, "it is over: 7 packets", id="over"),
        pytest.param(a_capture("Finished", packets=0), Mark.FAULT, "no packet has", id="empty"),
        pytest.param(
            a_capture("Scheduled", startTime="2026-11-22T18:28:40Z"),
            Mark.NOTE,
            "it begins in 2m",
            id="scheduled",
        ),
        pytest.param(a_capture("Error"), Mark.FAULT, "it cannot run", id="error"),
        pytest.param(
            {"metadata": {"name": "dns"}}, Mark.FAULT, "has not looked at it", id="no controller"
        ),
        pytest.param(
            {"metadata": {"deletionTimestamp": "x"}}, Mark.FAULT, "being deleted", id="deleted"
        ),
    ],
)
def test_verdicts(capture: dict[str, Any], mark: Mark, text: str) -> None:
    line = explain(capture, NOW)[0]
    assert line.mark is mark
    assert text in line.text


def test_stopped_capture_says_how_to_go_on() -> None:
    capture = a_capture("Finished", conditions=[a_condition("Suspended", "spec.suspend is true")])
    assert explain(capture, NOW)[1].advice.endswith("""-p '{"spec":{"suspend":false}}'""")


def test_capture_of_an_annotation_goes_on_by_its_annotation() -> None:
    """Whoever resumed the object saw the controller suspend it again."""
    capture = a_capture("Finished", conditions=[a_condition("Suspended", "spec.suspend is true")])
    capture["metadata"]["labels"] = {keys.SOURCE: keys.SOURCE_NAMESPACE}
    assert "nightcap.dev/capture=on" in explain(capture, NOW)[1].advice


def test_columns_are_those_of_kubectl_get() -> None:
    assert list_row(a_capture(), NOW, wide=False) == (
        "dns", "Capturing", "2", "2", "7", "0", "2.0 KiB", "10m",
    )  # fmt: skip
    wide = list_row(a_capture(spec={"podNames": ["a"]}), NOW, wide=True)
    assert wide[-3:] == ("pods a", "every packet", "2026-11-22T19:26:40Z")


def test_capture_nobody_looked_at_has_a_row_too() -> None:
    row = list_row({"metadata": {"name": "new"}}, NOW, wide=True)
    assert row[:3] == ("new", "-", "-")
    assert dict(status_rows({"metadata": {"name": "new"}}))["Phase"] == "not known yet"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "every pod of the namespace"),
        ({"selector": {"matchLabels": {"app": "web"}}}, "pods with app=web"),
        (
            {"selector": {"matchExpressions": [
                {"key": "a", "operator": "In", "values": ["b", "c"]},
                {"key": "d", "operator": "DoesNotExist"},
            ]}},
            "pods with a in (b,c),!d",
        ),
    ],
)  # fmt: skip
def test_selection_is_written_as_for_kubectl(spec: dict[str, Any], words: str) -> None:
    assert selection(spec) == words


def test_rules_are_written_as_words() -> None:
    rules = [{"protocol": "UDP", "ports": [53, "60:70"]}, {"protocol": "ICMP"}]
    assert packets_wanted({"filters": rules}) == "UDP port 53,60:70 or ICMP"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (119, "119s"), (120, "2m"), (3600, "1h"), (12_000, "3h20m"), (187_200, "2d4h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert human_age(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (20480, "20 KiB"), (2**50, "1024.0 TiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert human_size(size) == text


def test_restart_is_that_of_the_owner() -> None:
    def owned(kind: str, owner: str, **labels: str) -> dict[str, Any]:
        reference = {"kind": kind, "name": owner, "controller": True}
        return {"metadata": {"name": "p", "labels": labels, "ownerReferences": [reference]}}

    pods = [
        owned("ReplicaSet", "web-7d4f", **{"pod-template-hash": "7d4f"}),
        owned("ReplicaSet", "web-9c1a", **{"pod-template-hash": "9c1a"}),
        owned("StatefulSet", "db"),
        owned("Job", "once"),
        {"metadata": {"name": "alone"}},
    ]
    assert sorted(restarts(pods)) == [
        "delete pod alone (and create it again: nothing else will)",
        "delete pod p",
        "rollout restart deployment/web",
        "rollout restart statefulset/db",
    ]
