import json

import pytest
from msgspec import convert, structs

from nightcap.contract import keys
from nightcap.contract.coverage import (
    REFUSALS,
    SENTENCES,
    Coverage,
    coverage_of,
    has_sidecar,
    holding_reason,
    opted_in_at,
    orders_version,
    takes_orders,
    why_without_sidecar,
)
from nightcap.contract.objects import Container, ContainerStatus, ManagedFields, PodOS
from tests.unit.controller.builders import NOW, a_namespace, a_pod, at


def with_containers(pod, *names):
    containers = tuple(Container(name) for name in names)
    return structs.replace(pod, spec=structs.replace(pod.spec, init_containers=containers))


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(a_pod(), True, id="injected"),
        pytest.param(a_pod(injected=False), False, id="not injected"),
        pytest.param(with_containers(a_pod(), "istio-init", "nightcap"), True, id="beside others"),
        pytest.param(with_containers(a_pod(), "istio-init"), False, id="annotation was copied"),
        pytest.param(with_containers(a_pod(injected=False), "nightcap"), False, id="no annotation"),
    ],
)
def test_a_sidecar_is_the_container_and_the_annotation(pod, expected):
    assert has_sidecar(pod) is expected


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(a_pod(), True, id="running"),
        pytest.param(a_pod(phase="Pending"), True, id="pending"),
        pytest.param(a_pod(phase="Succeeded"), False, id="over"),
        pytest.param(a_pod(deleted=NOW), False, id="terminating"),
        pytest.param(a_pod(injected=False), False, id="without sidecar"),
    ],
)
def test_which_pods_a_change_of_orders_reaches(pod, expected):
    assert takes_orders(pod) is expected


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (json.dumps({"release": "0.1.0", "orders": 1}), 1),
        (json.dumps({"orders": 3}), 3),
        (json.dumps({"orders": 0}), 1),
        (json.dumps({"orders": "2"}), 1),
        (json.dumps([2]), 1),
        ("", 1),
        ("{", 1),
        ("[" * 100_000, 1),
    ],
    ids=["ours", "later", "zero", "text", "list", "empty", "cut", "deep"],
)
def test_the_version_of_orders_is_what_the_injection_noted(text, version):
    pod = a_pod(injected=False, annotations={keys.INJECTED: text})
    assert orders_version(pod) == version


OPTED_IN = NOW - 1800


def a_namespace_since(opted_in, created=NOW - 86400, **changes):
    """A namespace whose label was written at a time that the API server remembers."""
    namespace = a_namespace(created=created, **changes)
    entries = (
        written(created, {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}}}),
        written(opted_in, {"f:labels": {"f:nightcap.dev/inject": {}}}),
        written(NOW, {"f:annotations": {".": {}}}),
    )
    return structs.replace(
        namespace, metadata=structs.replace(namespace.metadata, managed_fields=entries)
    )


def written(seconds, metadata):
    """An entry of managedFields as the API server has it."""
    entry = {"manager": "kubectl-label", "operation": "Update", "time": at(seconds).isoformat(),
             "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": metadata}}  # fmt: skip
    return convert(entry, ManagedFields)


def test_a_namespace_is_opted_in_since_its_label_was_written():
    assert opted_in_at(a_namespace_since(OPTED_IN)) == at(OPTED_IN)
    assert opted_in_at(a_namespace(created=NOW - 60)) == at(NOW - 60)
    assert opted_in_at(a_namespace()) is None


def with_os(pod, name):
    return structs.replace(pod, spec=structs.replace(pod.spec, os=PodOS(name)))


BARE = a_pod(injected=False, created=OPTED_IN + 60)


@pytest.mark.parametrize(
    ("pod", "namespace", "expected"),
    [
        pytest.param(a_pod(), a_namespace(), Coverage.INJECTED, id="injected"),
        pytest.param(BARE, a_namespace_since(OPTED_IN), Coverage.MISSED, id="created after"),
        pytest.param(BARE, a_namespace(), Coverage.MISSED, id="nobody knows since when"),
        pytest.param(
            BARE, a_namespace_since(OPTED_IN + 61), Coverage.BEFORE_OPT_IN, id="created before"
        ),
        pytest.param(
            BARE, a_namespace_since(OPTED_IN + 60), Coverage.BEFORE_OPT_IN, id="in the same second"
        ),
        pytest.param(
            BARE, a_namespace(enabled=False), Coverage.NAMESPACE_NOT_ENABLED, id="not enabled"
        ),
        pytest.param(BARE, None, Coverage.NAMESPACE_NOT_ENABLED, id="unknown namespace"),
        pytest.param(
            BARE,
            a_namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}),
            Coverage.NAMESPACE_RESTRICTED,
            id="restricted",
        ),
        pytest.param(
            a_pod(injected=False, host_network=True),
            a_namespace(),
            Coverage.HOST_NETWORK,
            id="host",
        ),
        pytest.param(with_os(BARE, "windows"), a_namespace(), Coverage.WINDOWS, id="windows"),
        pytest.param(
            a_pod(injected=False, annotations={"kubernetes.io/config.mirror": "x"}),
            a_namespace(),
            Coverage.STATIC,
            id="static",
        ),
        pytest.param(
            a_pod(injected=False, labels={keys.INJECT: "disabled"}),
            a_namespace(),
            Coverage.OPTED_OUT,
            id="opted out",
        ),
    ],
)
def test_how_it_stands_with_a_pod(pod, namespace, expected):
    assert coverage_of(pod, namespace) is expected
    if expected is not Coverage.INJECTED:
        assert why_without_sidecar(pod, namespace) == SENTENCES[expected]


def test_every_way_of_being_without_has_its_sentence():
    assert set(SENTENCES) == set(Coverage) - {Coverage.INJECTED, Coverage.HELD}


@pytest.mark.parametrize(
    ("status", "phase", "expected"),
    [
        ({"waiting": {"reason": "ImagePullBackOff"}}, "Pending", "ImagePullBackOff"),
        ({"waiting": {"reason": "ErrImagePull", "message": "x"}}, "Pending", "ErrImagePull"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "Pending", "CrashLoopBackOff"),
        ({"waiting": {"reason": "PodInitializing"}}, "Pending", ""),
        ({"waiting": {}}, "Pending", ""),
        ({"running": {}}, "Pending", ""),
        (None, "Pending", ""),
        ({"waiting": {"reason": "ImagePullBackOff"}}, "Running", ""),
    ],
)
def test_a_pod_is_held_when_our_container_cannot_start(status, phase, expected):
    pod = held(a_pod(phase=phase), status)
    assert holding_reason(pod) == expected
    assert coverage_of(pod, a_namespace()) is (Coverage.HELD if expected else Coverage.INJECTED)


def test_other_containers_and_one_that_has_started_hold_nothing():
    waiting = {"waiting": {"reason": "ImagePullBackOff"}}
    assert not holding_reason(held(a_pod(phase="Pending"), waiting, name="istio-init"))
    assert not holding_reason(held(a_pod(phase="Pending"), waiting, started=True))


def held(pod, state, name="nightcap", started=False):
    status = ContainerStatus(name=name, started=started, state=state)
    return structs.replace(pod, status=structs.replace(pod.status, init_containers=(status,)))


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_pod_that_the_webhook_left_says_why(reason):
    pod = annotated(f"{reason}: ResourceQuota compute: requests.cpu is 1, of which 0 is used")
    expected = Coverage.WINDOWS if reason == "windows" else Coverage.MISSED
    assert coverage_of(pod, a_namespace()) is expected
    said = why_without_sidecar(pod, a_namespace())
    assert said.startswith(REFUSALS[reason])
    assert "which 0 is used" not in said  # differs from pod to pod, and they are named together
    assert ("(ResourceQuota compute)" in said) is (reason != "windows")


@pytest.mark.parametrize("value", ["", "nonsense", ": x"])
def test_what_nobody_of_ours_has_written_is_passed_over(value):
    said = why_without_sidecar(annotated(value), a_namespace())
    assert said == SENTENCES[Coverage.MISSED]


def annotated(value):
    pod = a_pod(injected=False)
    metadata = structs.replace(pod.metadata, annotations={keys.NOT_INJECTED: value})
    return structs.replace(pod, metadata=metadata)
