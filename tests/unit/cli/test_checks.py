from __future__ import annotations

import base64
from typing import Any

import pytest

from nightcap.cli import checks
from nightcap.cli.checks import Root
from nightcap.cli.doctor import roots_of
from nightcap.cli.words import Line, Mark

DAY = 86400.0


def a_configuration(**changes: Any) -> dict[str, Any]:
    service = {"namespace": "nightcap-system", "name": "nightcap-webhook"}
    client = {
        "service": changes.pop("service", service),
        "caBundle": changes.pop("bundle", base64.b64encode(b"PEM\n").decode()),
    }
    entry = {"name": "w", "clientConfig": client, "failurePolicy": "Ignore", **changes}
    return {"webhooks": [entry]}


ORDERS = checks.ORDERS_POLICY
BINDING = {"spec": {"policyName": "nightcap-orders", "validationActions": ["Deny"]}}
SERVED = {"resources": [{"name": "packetcaptures"}, {"name": "packetcaptures/status"}]}


def deployment(wanted: int, ready: int) -> dict[str, Any]:
    return {"spec": {"replicas": wanted}, "status": {"readyReplicas": ready}}


def slices(*ready: bool) -> list[dict[str, Any]]:
    return [
        {"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": is_ready}}]}
        for is_ready in ready
    ]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(checks.check_version({"major": "1", "minor": "35+"}), id="version"),
        pytest.param(checks.check_crd(SERVED), id="crd"),
        pytest.param(checks.check_deployment("d", deployment(2, 2)), id="deployment"),
        pytest.param(checks.check_service("s", {}, slices(False, True)), id="service"),
        pytest.param(checks.check_webhooks("mutating", a_configuration(), "PEM"), id="webhook"),
        pytest.param(checks.check_webhooks("mutating", a_configuration(), None), id="no bundle"),
        pytest.param(checks.check_roots([Root(0, 9 * DAY)], 7 * DAY), id="roots"),
        pytest.param(
            checks.check_roots([Root(0, 1), Root(0, 9 * DAY)], DAY), id="an old root beside it"
        ),
        pytest.param(checks.check_policy(ORDERS, {}, BINDING), id="policy"),
        pytest.param(checks.check_refusal(False, "filter 'x': syntax error"), id="refusal"),
        pytest.param(checks.check_canary("shop", None, True), id="canary"),
        pytest.param(checks.check_bare_pods("shop", {}), id="pods"),
    ],
)
def test_what_is_well_is_ok_and_needs_no_advice(line: Line) -> None:
    assert line.mark is Mark.OK
    assert not line.advice


@pytest.mark.parametrize(
    ("line", "word"),
    [
        pytest.param(checks.check_version({"major": "1", "minor": "29"}), "1.30", id="old"),
        pytest.param(checks.check_crd(None), "packetcaptures", id="no crd"),
        pytest.param(
            checks.check_crd({"resources": SERVED["resources"][:1]}),
            "packetcaptures/status",
            id="crd without status",
        ),
        pytest.param(checks.check_deployment("d", None), "does not exist", id="no deployment"),
        pytest.param(checks.check_deployment("d", deployment(0, 0)), "scaled to 0", id="scaled"),
        pytest.param(checks.check_deployment("d", deployment(2, 0)), "0 of 2", id="not ready"),
        pytest.param(checks.check_service("s", None, ()), "does not exist", id="no service"),
        pytest.param(
            checks.check_service("s", {"spec": {"selector": {"a": "b"}}}, slices(False)),
            "no ready endpoint",
            id="no endpoint",
        ),
        pytest.param(checks.check_webhooks("mutating", None, None), "not exist", id="no webhooks"),
        pytest.param(
            checks.check_webhooks("mutating", {}, None), "no webhook", id="empty webhooks"
        ),
        pytest.param(
            checks.check_webhooks("mutating", a_configuration(bundle=""), None),
            "no caBundle",
            id="caBundle wiped",
        ),
        pytest.param(
            checks.check_webhooks("mutating", a_configuration(), "OTHER"),
            "not that of ConfigMap",
            id="caBundle of others",
        ),
        pytest.param(
            checks.check_webhooks("mutating", a_configuration(failurePolicy="Fail"), None),
            "keep pods from starting",
            id="failurePolicy",
        ),
        pytest.param(
            checks.check_webhooks("mutating", a_configuration(service={"name": "x"}), None),
            "does not call nightcap-webhook",
            id="service of others",
        ),
        pytest.param(checks.check_roots(None, 0), "no certificate", id="no roots"),
        pytest.param(checks.check_roots([Root(0, DAY)], 2 * DAY), "expired 1d ago", id="expired"),
        pytest.param(checks.check_roots([Root(DAY, 2 * DAY)], 0), "not valid yet", id="future"),
        pytest.param(checks.check_roots([Root(0, 9 * DAY)], 8 * DAY), "renewed by now", id="late"),
        pytest.param(checks.check_policy(ORDERS, None, BINDING), "does not exist", id="no policy"),
        pytest.param(checks.check_policy(ORDERS, {}, None), "not bound", id="no binding"),
        pytest.param(
            checks.check_policy(ORDERS, {}, {"spec": {"policyName": "other"}}),
            "other",
            id="other policy",
        ),
        pytest.param(
            checks.check_policy(
                ORDERS,
                {},
                {"spec": {"policyName": "nightcap-orders", "validationActions": ["Audit"]}},
            ),
            "does not deny",
            id="audit alone",
        ),
        pytest.param(checks.check_refusal(True, ""), "was not asked", id="webhook away"),
        pytest.param(checks.check_canary("shop", None, False), "no sidecar", id="no injection"),
    ],
)
def test_each_fault_is_named_with_what_to_do(line: Line, word: str) -> None:
    assert line.mark is Mark.FAULT
    assert word in line.text
    assert line.advice


def test_restricted_namespace_and_bare_pods_are_notes() -> None:
    assert checks.check_canary("shop", "restricted", False).mark is Mark.NOTE
    bare = checks.check_bare_pods("shop", {"restart them": 2})
    assert bare.mark is Mark.NOTE
    assert bare.advice == "kubectl nightcap enable shop names them"
    assert checks.check_deployment("d", deployment(2, 1)).mark is Mark.NOTE
    assert checks.check_refusal(False, "not allowed to create").mark is Mark.NOTE


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        (checks.ORDERS_POLICY, "forge orders"),
        (checks.BROUGHT_POLICY, "forge orders"),
        (checks.OPTED_OUT_POLICY, "forge orders for those that opt out"),
        (checks.SIDECAR_POLICY, "waits for ever"),
        (checks.CANARY_POLICY, "can create pods"),
    ],
)
def test_a_policy_that_is_not_in_force_is_told_with_what_that_means(
    ours: checks.Policy, word: str
) -> None:
    bound = {
        "spec": {
            "policyName": ours.name,
            "validationActions": ["Deny"],
            "matchResources": {"objectSelector": {}} if ours.selects else None,
        }
    }
    assert checks.check_policy(ours, {}, bound).mark is Mark.OK
    for policy, binding in ((None, bound), ({}, None), ({}, {"spec": {"policyName": ours.name}})):
        line = checks.check_policy(ours, policy, binding)
        assert line.mark is Mark.FAULT
        assert word in line.text
        assert ours.name in line.text


def test_a_binding_for_some_namespaces_alone_says_what_holds_elsewhere() -> None:
    spec = {"policyName": ORDERS.name, "validationActions": ["Deny"], "matchResources": {"x": 1}}
    line = checks.check_policy(ORDERS, {}, {"spec": spec})
    assert line.mark is Mark.NOTE
    assert "forge orders" in line.advice


def test_a_binding_that_should_select_and_holds_for_every_pod_is_a_fault() -> None:
    ours = checks.OPTED_OUT_POLICY
    spec = {"policyName": ours.name, "validationActions": ["Deny"]}
    line = checks.check_policy(ours, {}, {"spec": spec})
    assert line.mark is Mark.FAULT
    assert "none can be injected" in line.text


def test_lives_of_roots_are_read_from_pem() -> None:
    from certs.issue import new_root

    pem = new_root(1, 1000 * DAY, 30 * DAY).certificate
    (root,) = roots_of(pem) or ()
    assert root.begins_at == 1000 * DAY - 3600
    assert root.ends_at == 1030 * DAY
    assert roots_of("no certificate") is None
    assert roots_of("") is None
