"""What must hold of every pod: golden pairs, properties of manifests and of invented pods."""

import json
import os
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nightcap.contract import keys
from tests.unit.webhook.admitting import CAPTURE, admit, decide_on
from tests.unit.webhook.builders import (
    a_capture,
    look,
    resolved,
)
from tests.unit.webhook.manifests import MANIFESTS, golden_cases, load_all
from webhook.eligibility import Keep
from webhook.resources import quality_of_service
from webhook.shape import Level


@pytest.mark.parametrize("path", golden_cases(), ids=lambda path: path.stem)
def test_a_pod_becomes_its_golden_pair(path):
    """With NIGHTCAP_WRITE_GOLDEN=1 the pairs are written anew, to be read in the diff."""
    case, pod = load_all(path)
    captures = (CAPTURE,) if case.get("capture") else ()
    result, outcome = admit(pod, Level(case["level"]), captures=captures)
    told = {
        "decision": outcome.decision,
        "reason": outcome.reason,
        "warnings": list(outcome.answer.warnings),
    }
    pair = path.with_suffix(".injected.yaml")
    if os.environ.get("NIGHTCAP_WRITE_GOLDEN"):
        text = yaml.safe_dump_all([told, result], sort_keys=False, width=110)
        pair.write_text(text)
    assert load_all(pair) == [told, result]


def added_to(before: Any, after: Any) -> bool:
    """Whether all that was there is there still, in the same order; null is nothing."""
    if before is None:
        return True
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            key in after and added_to(value, after[key]) for key, value in before.items()
        )
    if isinstance(before, list):
        rest = iter(after)
        return all(any(added_to(value, candidate) for candidate in rest) for value in before)
    return type(before) is type(after) and bool(before == after)


def without_ours(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod without the annotations that are Nightcap's to decide."""
    copy: dict[str, Any] = json.loads(json.dumps(pod))
    metadata = copy.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    for key in (keys.ORDERS, keys.INJECTED, keys.NOT_INJECTED):
        annotations.pop(key, None)
    if not annotations:  # none, null and empty are the same
        metadata.pop("annotations", None)
    if not metadata:
        copy.pop("metadata", None)
    return copy


def passes_baseline(container: dict[str, Any]) -> bool:
    """What Pod Security's level baseline asks of a container like ours."""
    context = container["securityContext"]
    return (
        not context["privileged"]
        and not context["capabilities"].get("add")
        and context["seccompProfile"]["type"] == "RuntimeDefault"
        and context.get("appArmorProfile", {"type": "RuntimeDefault"})["type"] == "RuntimeDefault"
        and not any("hostPort" in port for port in container.get("ports", ()))
    )


def check_properties(pod: dict[str, Any], level: Level, captures: tuple[Any, ...]) -> str:
    once, outcome = admit(pod, level, captures=captures)
    assert added_to(without_ours(pod), without_ours(once))
    twice, again = admit(once, level, captures=captures)
    assert again.answer.patch == b""
    assert twice == once
    for operation in json.loads(outcome.answer.patch or b"[]"):
        ours = operation["path"].startswith("/metadata/annotations/nightcap.dev~1")
        assert operation["op"] == "add" or ours
    if outcome.decision != "injected":
        assert without_ours(once) == without_ours(pod)
        return outcome.decision
    assert once["spec"]["containers"] == pod["spec"]["containers"]
    assert quality_of_service(look(once)) == quality_of_service(look(pod))
    sidecar = once["spec"]["initContainers"][0]
    assert (sidecar["name"], sidecar["restartPolicy"]) == (keys.SIDECAR_CONTAINER, "Always")
    assert passes_baseline(sidecar) == (level is Level.BASELINE)
    assert ("lifecycle" in sidecar) == (keys.ORDERS in once["metadata"]["annotations"])
    assert isinstance(decide_on(once, level), Keep)
    return outcome.decision


EVERY_POD = resolved(a_capture("all", labels={}))


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_must_hold_of_every_manifest(name):
    pod = MANIFESTS[name]
    for level in Level:
        for captures in ((), (CAPTURE, EVERY_POD)):
            check_properties(pod, level, captures)
    bare = {key: value for key, value in pod.items() if key != "metadata"}
    check_properties(bare, Level.PRIVILEGED, (EVERY_POD,))


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_answer_does_not_depend_on_the_order_of_keys(name):
    pod = MANIFESTS[name]
    other = json.loads(json.dumps(pod, sort_keys=True))
    assert admit(pod)[1] == admit(other)[1]


RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        part: st.dictionaries(
            st.sampled_from(["cpu", "memory", "ephemeral-storage"]),
            st.sampled_from(["0", "50m", "1", "64Mi", "1Gi"]),
        )
        for part in ("requests", "limits")
    },
)
NAMES = st.sampled_from(["app", "nightcap", "nightcap-spool", "cache"])
MOUNTS = st.lists(st.fixed_dictionaries({"name": NAMES, "mountPath": st.just("/m")}), max_size=2)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={
            "resources": RESOURCES,
            "volumeMounts": MOUNTS,
            "restartPolicy": st.just("Always"),
            "x-unknown": st.integers(),
        },
    ),
    max_size=3,
)
PODS = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": CONTAINERS},
            optional={
                "initContainers": CONTAINERS | st.none(),
                "volumes": st.none()
                | st.lists(st.fixed_dictionaries({"name": NAMES, "emptyDir": st.just({})})),
                "hostNetwork": st.booleans() | st.none(),
                "resources": RESOURCES,
                "shareProcessNamespace": st.booleans(),
            },
        )
    },
    optional={
        "metadata": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "name": st.just("p"),
                "labels": st.none() | st.just({"app": "logging"}),
                "annotations": st.none()
                | st.dictionaries(
                    st.sampled_from([keys.ORDERS, keys.INJECTED, "team", keys.CAPTURE]), st.text()
                ),
            },
        )
    },
)


@settings(deadline=None)
@given(pod=PODS, level=st.sampled_from(Level), runs=st.booleans())
def test_what_must_hold_of_every_manifest_holds_of_invented_pods(pod, level, runs):
    check_properties(pod, level, (CAPTURE, EVERY_POD) if runs else ())
