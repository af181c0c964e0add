"""Kubernetes label selectors, evaluated: structure, not grammar.

Source: k8s.io/apimachinery `metav1.LabelSelector`; In and Exists need the label,
NotIn and DoesNotExist also match where it is absent.
"""

from collections.abc import Mapping

from msgspec import Struct


class Requirement(Struct, frozen=True):
    """One of `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Struct, frozen=True, rename="camel"):
    """`metav1.LabelSelector`."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[Requirement, ...] = ()


class BadSelector(ValueError):
    """A selector that is refused; the message quotes what is wrong and names the rule."""


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def check_selector(selector: LabelSelector) -> None:
    """Refuse what Kubernetes itself would refuse of a selector.

    Raises:
        BadSelector: unknown operator, In or NotIn without values, Exists with values.
    """
    for requirement in selector.match_expressions:
        operator, values = requirement.operator, requirement.values
        if operator not in _OPERATORS:
            raise BadSelector(
                f"selector: operator {operator[:40]!r} of {requirement.key!r} must be one of "
                + ", ".join(_OPERATORS)
            )
        if (operator in ("In", "NotIn")) != bool(values):
            wants = "at least one value" if operator in ("In", "NotIn") else "no values"
            raise BadSelector(f"selector: {operator} of {requirement.key!r} takes {wants}")


def matches_selector(selector: LabelSelector | None, labels: Mapping[str, str] | None) -> bool:
    """Whether labels satisfy a selector; an absent or empty one is satisfied by all."""
    if selector is None:
        return True
    labels = labels or {}
    wanted = selector.match_labels or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _satisfies(requirement, labels) for requirement in selector.match_expressions
    )


def _satisfies(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False  # refused by check_selector; matching nothing is the safe reading
