import pytest

from controller.proving import (
    DOUBT_SECONDS,
    PROVEN_SECONDS,
    Attempt,
    Proof,
    Verdict,
    due,
    fingerprint_of,
    judge,
)
from nightcap.contract.canary import canary_pod, has_sidecar
from tests.unit.controller.builders import NOW, a_namespace

BARE = Attempt(canary_pod("x-"))
INJECTED = Attempt({"spec": {"initContainers": [{"name": "nightcap"}]}})
REFUSED = Attempt(said="forbidden: no NET_RAW here")
RESTRICTED = a_namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"})


@pytest.mark.parametrize(
    ("namespace", "attempt", "without", "is_off", "proof"),
    [
        pytest.param(a_namespace(), INJECTED, None, False, Proof.PROVEN, id="injected"),
        pytest.param(a_namespace(), INJECTED, None, True, Proof.PROVEN, id="not off yet"),
        pytest.param(a_namespace(), BARE, None, False, Proof.NOT_INJECTED, id="webhook away"),
        pytest.param(a_namespace(), BARE, None, True, Proof.SWITCHED_OFF, id="off"),
        pytest.param(RESTRICTED, BARE, None, False, Proof.RESTRICTED, id="restricted"),
        pytest.param(a_namespace(), REFUSED, BARE, False, Proof.REFUSED, id="because of us"),
        pytest.param(a_namespace(), REFUSED, REFUSED, False, Proof.UNKNOWN, id="anyhow"),
        pytest.param(a_namespace(), REFUSED, None, False, Proof.UNKNOWN, id="not tried without"),
    ],
)
def test_what_the_answers_prove(namespace, attempt, without, is_off, proof):
    found, said = judge(namespace, attempt, without, is_off=is_off)
    assert found is proof
    assert bool(said) is (attempt is REFUSED)


def a_verdict(proof, age, namespace=None, is_off=False):
    fingerprint = fingerprint_of(namespace or a_namespace(), is_off=is_off)
    return {"shop": Verdict(proof, "", fingerprint, NOW - age)}


@pytest.mark.parametrize(
    ("proof", "age", "again"),
    [
        (Proof.PROVEN, PROVEN_SECONDS - 1, False),
        (Proof.PROVEN, PROVEN_SECONDS, True),
        (Proof.PROVEN, -PROVEN_SECONDS, True),
        (Proof.RESTRICTED, DOUBT_SECONDS, False),
        (Proof.REFUSED, DOUBT_SECONDS - 1, False),
        (Proof.REFUSED, DOUBT_SECONDS, True),
        (Proof.UNKNOWN, DOUBT_SECONDS, True),
        (Proof.NOT_INJECTED, DOUBT_SECONDS, True),
    ],
)
def test_a_proof_is_good_for_a_while_and_a_doubt_for_less(proof, age, again):
    assert bool(due([a_namespace()], a_verdict(proof, age), NOW, is_off=False)) is again


def test_what_changes_the_answer_makes_it_due_at_once():
    fresh = a_verdict(Proof.PROVEN, 1)
    assert not due([a_namespace(labels={"team": "x"})], fresh, NOW, is_off=False)
    assert due([RESTRICTED], fresh, NOW, is_off=False)
    assert due([a_namespace()], fresh, NOW, is_off=True)


def test_only_opted_in_namespaces_are_tried_and_unknown_ones_first():
    names = ("shop", "bank", "quiet")
    namespaces = [a_namespace(name=name, enabled=name != "quiet") for name in names]
    old = a_verdict(Proof.PROVEN, 2 * PROVEN_SECONDS)
    found = due(namespaces, old, NOW, is_off=False)
    assert [namespace.metadata.name for namespace in found] == ["bank", "shop"]


def test_a_canary_opts_out_when_it_is_to_be_without():
    assert not has_sidecar(canary_pod("x-"))
    assert has_sidecar({"spec": {"initContainers": [{"name": "nightcap"}]}})
    assert "labels" not in canary_pod("x-")["metadata"]
    assert canary_pod("x-", injected=False)["metadata"]["labels"] == {
        "nightcap.dev/inject": "disabled"
    }
