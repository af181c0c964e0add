import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.selectors import (
    BadSelector,
    LabelSelector,
    Requirement,
    check_selector,
    matches_selector,
)

LABELS = {"app": "web", "tier": "front"}


def needs(key, operator, *values):
    return LabelSelector(match_expressions=(Requirement(key, operator, values),))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, True),
        (LabelSelector(), True),
        (LabelSelector(match_labels={"app": "web"}), True),
        (LabelSelector(match_labels={"app": "web", "tier": "back"}), False),
        (LabelSelector(match_labels={"zone": "a"}), False),
        (needs("app", "In", "web", "db"), True),
        (needs("app", "In", "db"), False),
        (needs("zone", "In", "a"), False),
        (needs("app", "NotIn", "db"), True),
        (needs("app", "NotIn", "web"), False),
        (needs("zone", "NotIn", "a"), True),
        (needs("app", "Exists"), True),
        (needs("zone", "Exists"), False),
        (needs("zone", "DoesNotExist"), True),
        (needs("app", "DoesNotExist"), False),
        (needs("app", "Near", "web"), False),
        (LabelSelector({"app": "web"}, (Requirement("tier", "NotIn", ("front",)),)), False),
    ],
)
def test_selectors_match_as_in_kubernetes(selector, expected):
    assert matches_selector(selector, LABELS) is expected


def test_a_pod_without_labels_is_matched_by_what_asks_for_absence_alone():
    assert matches_selector(needs("app", "DoesNotExist"), None)
    assert not matches_selector(needs("app", "Exists"), None)


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        (needs("app", "Near", "web"), "'Near'"),
        (needs("app", "In"), "at least one value"),
        (needs("app", "NotIn"), "at least one value"),
        (needs("app", "Exists", "web"), "no values"),
        (needs("app", "DoesNotExist", "web"), "no values"),
    ],
)
def test_a_selector_that_kubernetes_refuses_is_refused(selector, says):
    with pytest.raises(BadSelector, match=says):
        check_selector(selector)


_keys = st.sampled_from(["app", "tier", "zone"])
_values = st.sampled_from(["web", "front", "a"])


@given(_keys, st.lists(_values, min_size=1, max_size=3), st.dictionaries(_keys, _values))
def test_not_in_is_the_opposite_of_in(key, values, labels):
    within = matches_selector(needs(key, "In", *values), labels)
    assert matches_selector(needs(key, "NotIn", *values), labels) is not within
    exists = matches_selector(needs(key, "Exists"), labels)
    assert matches_selector(needs(key, "DoesNotExist"), labels) is not exists
