from __future__ import annotations

from typing import Any

import pytest

from nightcap.cli import ground_checks as checks
from nightcap.cli.words import Line, Mark

NOW = 1_795_000_000.0
LABELS = {
    "nightcap-webhook": {"app": "webhook"},
    "nightcap-retrieval": {"app": "retrieval"},
}


def a_lease(age_seconds: float, holder: str = "c-1") -> dict[str, Any]:
    from datetime import UTC, datetime

    renewed = datetime.fromtimestamp(NOW - age_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15}
    return {"spec": spec}


def a_policy(name: str = "deny", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"podSelector": {}, **spec}}


def a_namespace(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "shop", "labels": labels}}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(checks.check_lease(a_lease(5), NOW), id="lease"),
        pytest.param(checks.check_lease(a_lease(-5), NOW), id="a clock that is behind"),
        pytest.param(checks.check_volume({"status": {"phase": "Bound"}}), id="volume"),
        pytest.param(checks.check_secret("s", {"data": {"a": "b"}}), id="secret"),
        pytest.param(checks.check_schema(None), id="schema"),
        pytest.param(checks.check_schema("filter and filters"), id="refused for its values"),
    ],
)
def test_what_is_well_is_ok(line: Line) -> None:
    assert (line.mark, line.advice) == (Mark.OK, "")


STRICT = 'strict decoding error: unknown field "spec.limits.whenFull", unknown field "spec.x"'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(checks.check_lease(None, NOW), "no controller leads", id="no lease"),
        pytest.param(checks.check_lease(a_lease(5, ""), NOW), "no controller leads", id="free"),
        pytest.param(checks.check_lease(a_lease(600), NOW), "not renewed its lease for 10m",
                     id="stale"),
        pytest.param(checks.check_volume(None), "does not exist", id="no volume"),
        pytest.param(checks.check_volume({"status": {"phase": "Pending"}}), "is Pending",
                     id="pending"),
        pytest.param(checks.check_secret("s", None), "Secret s does not exist", id="no secret"),
        pytest.param(checks.check_schema(STRICT), "does not know spec.limits.whenFull, spec.x",
                     id="an old CRD"),
        *(pytest.param(next(checks.check_labels([a_namespace(**{key: value})])), words, id=key)
          for key, value, words in (
              ("nightcap.dev/inject", "enable", "the value that enables is enabled"),
              ("nightcap.dev/injected", "enabled", "nightcap.dev/inject=enabled"),
              ("nightcap/inject", "enabled", "nightcap.dev/inject=enabled"),
              ("nightcap-inject", "true", "nightcap.dev/inject=enabled"),
          )),
        pytest.param(checks.check_network([a_policy(policyTypes=["Ingress"])], LABELS)[0],
                     "lets nobody reach nightcap-webhook at port https", id="deny all"),
        pytest.param(checks.check_network([a_policy()], LABELS)[1],
                     "lets nobody reach nightcap-retrieval at port 20443", id="no types"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_what_to_do(line: Line, words: str) -> None:
    assert line.mark is Mark.FAULT
    assert words in line.text
    assert line.advice


def test_labels_that_are_right_or_of_others_say_nothing() -> None:
    fine = {"nightcap.dev/inject": "enabled", "istio.io/inject": "x", "app": "nightcap"}
    assert list(checks.check_labels([a_namespace(**fine), a_namespace()])) == []


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"podSelector": {"matchLabels": {"app": "other"}}}, id="other pods"),
        pytest.param({"policyTypes": ["Egress"]}, id="other direction"),
        pytest.param({"ingress": [{}]}, id="everything"),
        pytest.param({"ingress": [{"ports": [{"port": 20443}, {"port": "https"}]}]}, id="ports"),
    ],
)
def test_network_policies_that_let_callers_in_say_nothing(spec: dict[str, Any]) -> None:
    assert checks.check_network([a_policy(**spec)], LABELS) == []
    # Several policies add up.
    both = [a_policy(), a_policy("open", ingress=[{}])]
    assert checks.check_network(both, LABELS) == []


def test_namespace_that_sends_nothing_is_noted() -> None:
    closed = a_policy(policyTypes=["Egress"], egress=[{"ports": [{"port": 53}]}])
    said = checks.check_egress("shop", [closed])
    assert said is not None
    assert said.mark is Mark.NOTE
    assert "policy deny lets pods send nothing to TCP port 20443" in said.text
    assert "--from-pods" in said.advice
    to_us = a_policy("open", egress=[{"to": [{"namespaceSelector": {}}],
                                      "ports": [{"port": 20443}]}])  # fmt: skip
    assert checks.check_egress("shop", [closed, to_us]) is None
    assert checks.check_egress("shop", []) is None


def test_sidecar_of_an_earlier_installation_is_found() -> None:
    """After an uninstall and an install there is another root, and nothing said so."""

    def a_pod(name: str, root: str, **metadata: str) -> dict[str, Any]:
        env = [{"name": "NIGHTCAP_COLLECTOR_CA", "value": root}]
        sidecar = {"name": "nightcap", "env": env}
        return {"metadata": {"name": name, **metadata}, "spec": {"initContainers": [sidecar]}}

    plain = {"metadata": {"name": "plain"}, "spec": {}}
    trusted = "ROOT-1\nROOT-2\n"
    # Whoever did as the advice says is told so no more while the old pods end.
    going = a_pod("going", "ROOT-0\n", deletionTimestamp="2026-11-23T02:28:00Z")
    pods = [a_pod("new", "ROOT-2\n"), a_pod("older", "ROOT-1\n"), plain, going]
    assert checks.check_pinned("shop", pods, trusted) is None
    said = checks.check_pinned("shop", [*pods, a_pod("stale", "ROOT-0\n")], trusted)
    assert said is not None
    assert said.mark is Mark.FAULT
    assert "1 pod with a sidecar of an earlier installation" in said.text
    assert "(stale)" in said.text
    assert "--from-pods" in said.advice


def test_every_field_of_the_crd_is_tried() -> None:
    from pathlib import Path

    import yaml

    file = Path(__file__).resolve().parents[3] / "manifests" / "base" / "crd.yaml"
    crd = next(document for document in yaml.safe_load_all(file.read_text()) if document)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(checks.EVERY_FIELD) == set(schema["properties"])
    for name in ("rotation", "limits"):
        assert set(checks.EVERY_FIELD[name]) == set(schema["properties"][name]["properties"])


def a_node(name: str, version: str, system: str = "linux") -> dict[str, Any]:
    info = {"kubeletVersion": version, "operatingSystem": system}
    return {"metadata": {"name": name}, "status": {"nodeInfo": info}}


def test_kubelets_that_know_no_native_sidecars_are_named() -> None:
    nodes = [
        a_node("new", "v1.35.4"),
        a_node("least", "v1.29.0-eks-1"),
        a_node("other", "v1.27.3", "windows"),
        a_node("odd", "unknown"),
    ]
    assert checks.check_nodes(nodes).mark is Mark.OK
    line = checks.check_nodes([*nodes, *(a_node(f"old-{n}", "v1.28.15") for n in range(7))])
    assert line.mark is Mark.FAULT
    assert "old-0 (v1.28.15)" in line.text
    assert line.text.endswith("and 2 more")
    assert "nightcap-injection" in line.advice
