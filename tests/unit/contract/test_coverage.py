import json

import pytest
from msgspec import structs

from nightcap.contract import keys
from nightcap.contract.coverage import has_sidecar, orders_version, takes_orders
from nightcap.contract.objects import Container
from tests.unit.controller.builders import NOW, a_pod


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
