"""Rows of quotas and LimitRanges; tests/apiserver asks the API server itself."""

import pytest

from tests.unit.webhook.builders import SIZES, a_limit_range, a_quota
from tests.unit.webhook.test_resources import (
    BEST_EFFORT,
    BURSTABLE,
    FLOOR,
    GUARANTEED,
    ZERO,
    with_resources,
)
from webhook.constraints import Fitting, Refused, fit
from webhook.eligibility import SkipReason
from webhook.facts import NamespaceFacts

MEBI = 2**20


def in_namespace(*limit_ranges, quotas=()):
    return NamespaceFacts("storefront", True, limit_ranges, tuple(quotas))


def refusal(pod, namespace):
    found = fit(pod, SIZES, namespace)
    return found.reason if isinstance(found, Refused) else None


TERMINATING = ("Terminating",)
TIGHT = {"requests.cpu": "500m"}  # what GUARANTEED asks for, and no more
FULL_QUOTA = {"requests.cpu": "1", "requests.memory": "1Gi"}

QUOTAS = [
    ("headroom", GUARANTEED, a_quota(**FULL_QUOTA), None),
    ("none-left-by-the-pod", GUARANTEED, a_quota(**TIGHT), SkipReason.QUOTA),
    ("none-left-by-others", GUARANTEED, a_quota(**FULL_QUOTA, used={"requests.cpu": "0.49"}),
     SkipReason.QUOTA),
    ("just-enough", GUARANTEED, a_quota(**FULL_QUOTA, used={"requests.cpu": "450m"}), None),
    ("short-names", GUARANTEED, a_quota(cpu="500m"), SkipReason.QUOTA),
    ("nothing-reserved", BURSTABLE, a_quota(**{"requests.cpu": "100m"}), None),
    ("full-but-nothing-reserved", BURSTABLE, a_quota(cpu="0", used={"cpu": "9"}), None),
    ("other-pods", GUARANTEED, a_quota(**TIGHT, scopes=TERMINATING), None),
    ("scope-met", GUARANTEED, a_quota(**TIGHT, scopes=("NotBestEffort",)), SkipReason.QUOTA),
    ("one-scope-not-met", GUARANTEED, a_quota(**TIGHT, scopes=("NotTerminating", "BestEffort")),
     None),
    ("objects", GUARANTEED, a_quota(pods="0", services="0"), None),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "quota", "expected"), [row[1:] for row in QUOTAS],
                         ids=[row[0] for row in QUOTAS])  # fmt: skip
def test_a_quota_without_room_for_the_sidecar_refuses(pod, quota, expected):
    assert refusal(pod, in_namespace(quotas=[quota])) == expected


AMOUNT = {"memory": "100Mi"}
LIMIT_RANGES = [
    ("least-above-zero", BURSTABLE, a_limit_range(min=AMOUNT), SkipReason.LIMIT_RANGE),
    ("least-above-floor", GUARANTEED, a_limit_range(min=AMOUNT), SkipReason.LIMIT_RANGE),
    ("least-below-floor", GUARANTEED, a_limit_range(min={"memory": "64Mi"}), None),
    ("least-of-nothing", BURSTABLE, a_limit_range(min={"memory": "0"}), None),
    ("most-is-kept-by-zero", BURSTABLE, a_limit_range(max=AMOUNT), None),
    ("most-below-floor", GUARANTEED, a_limit_range(max={"memory": "10Mi"}), SkipReason.LIMIT_RANGE),
    ("ratio", BURSTABLE, a_limit_range(maxLimitRequestRatio={"cpu": "4"}), SkipReason.LIMIT_RANGE),
    ("ratio-of-one", GUARANTEED, a_limit_range(maxLimitRequestRatio={"cpu": "1"}), None),
    ("pods-most", GUARANTEED, a_limit_range("Pod", max={"cpu": "500m"}), SkipReason.LIMIT_RANGE),
    ("pods-most-with-room", GUARANTEED, a_limit_range("Pod", max={"cpu": "550m"}), None),
    ("refused-without-us", GUARANTEED, a_limit_range("Pod", max={"cpu": "100m"}), None),
    ("of-volumes", GUARANTEED, a_limit_range("PersistentVolumeClaim", min={"storage": "1"}), None),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "limit_range", "expected"), [row[1:] for row in LIMIT_RANGES],
                         ids=[row[0] for row in LIMIT_RANGES])  # fmt: skip
def test_a_limit_range_that_the_sidecar_breaks_refuses(pod, limit_range, expected):
    assert refusal(pod, in_namespace(limit_range)) == expected


def test_an_init_container_that_needs_more_than_all_others_counts_beside_the_sidecar():
    pod = with_resources(({"cpu": "1"}, {}), init=[({"cpu": "3"}, {"cpu": "3"})])
    limits = a_quota(**{"limits.cpu": "3"}, used={"limits.cpu": "0"})
    assert fit(pod, SIZES, in_namespace(quotas=[limits])).resources.limits == (("cpu", "0"),)
    default = a_limit_range(default={"cpu": "1"})
    assert isinstance(fit(pod, SIZES, in_namespace(default, quotas=[limits])), Fitting)


def test_a_budget_of_the_whole_pod_stands_in_the_place_of_the_sum():
    budget = {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}}
    pod = with_resources(({"cpu": "500m"}, {"cpu": "500m"}), pod=budget)
    most = a_limit_range("Pod", max={"cpu": "500m"})
    assert refusal(pod, in_namespace(most, quotas=[a_quota(**TIGHT)])) is None


def test_limits_of_zero_are_the_second_choice():
    default = a_limit_range(default={"cpu": "1", "memory": "1Gi"})
    assert fit(BURSTABLE, SIZES, in_namespace(default)) == Fitting(
        fit(BURSTABLE, SIZES, in_namespace()).resources
    )
    most = a_limit_range("Pod", max={"cpu": "1"})
    pod = with_resources(({"cpu": "100m"}, {"cpu": "1"}))
    assert fit(pod, SIZES, in_namespace(default, most)).resources.limits == ZERO


def test_the_floor_is_kept_where_there_is_room():
    namespace = in_namespace(a_limit_range(max={"cpu": "1", "memory": "1Gi"}))
    assert fit(GUARANTEED, SIZES, namespace).resources.limits == FLOOR


@pytest.mark.parametrize(
    ("default", "spool_bytes", "limit"),
    [("100Mi", 100 * MEBI, str(100 * MEBI)), ("48Mi", 48 * MEBI, str(48 * MEBI)),
     ("256Mi", None, "256Mi"), ("10Gi", None, "256Mi")],
)  # fmt: skip
def test_the_spool_is_no_larger_than_a_default_of_ephemeral_storage(default, spool_bytes, limit):
    namespace = in_namespace(a_limit_range(default={"ephemeral-storage": default}))
    found = fit(BEST_EFFORT, SIZES, namespace)
    assert found.spool_bytes == spool_bytes
    assert dict(found.resources.limits)["ephemeral-storage"] == limit


def test_a_default_that_no_spool_fits_into_refuses():
    namespace = in_namespace(a_limit_range(default={"ephemeral-storage": "47Mi"}))
    assert refusal(BEST_EFFORT, namespace) == SkipReason.LIMIT_RANGE


def test_a_quota_on_ephemeral_storage_counts_the_spool():
    pod = with_resources(({}, {"ephemeral-storage": "1Gi"}))
    name = "limits.ephemeral-storage"
    assert refusal(pod, in_namespace(quotas=[a_quota(**{name: "1Gi"})])) == SkipReason.QUOTA
    assert refusal(pod, in_namespace(quotas=[a_quota(**{name: "1280Mi"})])) is None
