from fractions import Fraction

import pytest

from tests.unit.webhook.builders import SIZES, a_container, a_pod, a_quota, look
from webhook.facts import NamespaceFacts
from webhook.resources import (
    QualityOfService,
    SidecarResources,
    Sizes,
    parse_quantity,
    quality_of_service,
    sidecar_resources,
)

PLAIN = NamespaceFacts("storefront", enabled=True)
ZERO = (("cpu", "0"), ("memory", "0"))
FLOOR = (("cpu", "50m"), ("memory", "64Mi"))


def with_resources(*containers, init=(), pod=None):
    def of(part, name):
        requests, limits = part
        return a_container(name, resources={"requests": requests, "limits": limits})

    fields = {"resources": pod} if pod is not None else {}
    return look(
        a_pod(
            containers=[of(part, f"c{n}") for n, part in enumerate(containers)],
            initContainers=[of(part, f"i{n}") for n, part in enumerate(init)],
            **fields,
        )
    )


FULL = {"cpu": "500m", "memory": "128Mi"}
GUARANTEED = with_resources((FULL, FULL))
BURSTABLE = with_resources(({"cpu": "100m"}, {}))
BEST_EFFORT = with_resources(({}, {}))

CLASSES = [
    ("nothing", BEST_EFFORT, "BestEffort"),
    ("zeros", with_resources(({"cpu": "0"}, {"memory": "0"})), "BestEffort"),
    ("only-storage", with_resources(({}, {"ephemeral-storage": "1Gi"})), "BestEffort"),
    ("a-request", BURSTABLE, "Burstable"),
    ("equal", GUARANTEED, "Guaranteed"),
    ("limits-alone", with_resources(({}, FULL)), "Guaranteed"),
    ("equal-said-differently", with_resources(({"cpu": "0.5", "memory": "134217728"}, FULL)),
     "Guaranteed"),
    ("numbers", with_resources(({"cpu": 1, "memory": "1Gi"}, {"cpu": "1000m", "memory": "1Gi"})),
     "Guaranteed"),
    ("one-container-without", with_resources((FULL, FULL), ({}, {})), "Burstable"),
    ("init-container-without", with_resources((FULL, FULL), init=[({}, {})]), "Burstable"),
    ("init-container-equal", with_resources((FULL, FULL), init=[(FULL, FULL)]), "Guaranteed"),
    ("only-memory", with_resources(({}, {"memory": "1Gi"})), "Burstable"),
    ("lower-request", with_resources(({"cpu": "1m"}, FULL)), "Burstable"),
    ("pod-level-equal", with_resources(({}, {}), pod={"requests": FULL, "limits": FULL}),
     "Guaranteed"),
    ("pod-level-request", with_resources((FULL, FULL), pod={"requests": {"cpu": "1"}}),
     "Burstable"),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "expected"), [row[1:] for row in CLASSES],
                         ids=[row[0] for row in CLASSES])  # fmt: skip
def test_quality_of_service_is_what_kubernetes_computes(pod, expected):
    assert quality_of_service(pod) == QualityOfService(expected)


def test_best_effort_and_burstable_pods_reserve_nothing():
    assert sidecar_resources(BEST_EFFORT, SIZES, PLAIN) == SidecarResources(ZERO)
    assert sidecar_resources(BURSTABLE, SIZES, PLAIN) == SidecarResources(ZERO)


def test_a_guaranteed_pod_gets_the_floor_as_request_and_limit():
    assert sidecar_resources(GUARANTEED, SIZES, PLAIN) == SidecarResources(FLOOR, FLOOR)


def test_pod_level_resources_are_lived_within():
    """One more request beside a pod-level budget that is used up is a 422."""
    pod = with_resources((FULL, FULL), pod={"requests": FULL, "limits": FULL})
    assert sidecar_resources(pod, SIZES, PLAIN) == SidecarResources(ZERO)


def test_a_memory_limit_is_for_burstable_pods_alone():
    sizes = Sizes("50m", "64Mi", "128Mi", "256Mi")
    assert sidecar_resources(BURSTABLE, sizes, PLAIN).limits == (("memory", "128Mi"),)
    assert sidecar_resources(BEST_EFFORT, sizes, PLAIN).limits == ()
    assert sidecar_resources(GUARANTEED, sizes, PLAIN).limits == FLOOR


def test_a_quota_on_limits_is_satisfied_by_limits_of_zero():
    """A quota that counts limits answers 403 to a container that has none."""
    quota = NamespaceFacts(
        "storefront", enabled=True, quotas=(a_quota("limits.cpu", "limits.memory"),)
    )
    assert sidecar_resources(BURSTABLE, SIZES, quota) == SidecarResources(ZERO, ZERO)
    assert sidecar_resources(GUARANTEED, SIZES, quota) == SidecarResources(FLOOR, FLOOR)


def test_a_limit_of_ephemeral_storage_is_raised_by_our_spool():
    """Else 60 Mi in our spool evict a pod whose application may use 20 Mi."""
    pod = with_resources(({}, {"ephemeral-storage": "20Mi"}))
    found = sidecar_resources(pod, SIZES, PLAIN)
    assert found.requests == (*ZERO, ("ephemeral-storage", "0"))
    assert found.limits == (("ephemeral-storage", "256Mi"),)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0), ("250m", Fraction(1, 4)), ("1.5", Fraction(3, 2)), (".5", Fraction(1, 2)),
        ("2e3", 2000), ("1E-1", Fraction(1, 10)), ("1E", 10**18), ("1Ei", 2**60),
        ("5n", Fraction(5, 10**9)),
        ("-1", -1), (2, 2), (0.5, Fraction(1, 2)), ("12Gi", 12 * 2**30),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_writes_them(text, amount):
    assert parse_quantity(text) == amount


@pytest.mark.parametrize("text", ["", "x", "1Q", "1 Gi", "1e999", "0x10", "٣", "--1", "9" * 40])
def test_what_is_no_quantity_is_none(text):
    assert parse_quantity(text) is None
