"""Which pods a person means: `deployment/NAME`, `pod/NAME`, a selector, or all. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_KEY: Final = re.compile(
    r"(?:[A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SET: Final = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")

_KINDS: Final = {
    "deployment": ("apps", "deployments", ("deployments", "deploy")),
    "statefulset": ("apps", "statefulsets", ("statefulsets", "sts")),
    "daemonset": ("apps", "daemonsets", ("daemonsets", "ds")),
    "replicaset": ("apps", "replicasets", ("replicasets", "rs")),
    "job": ("batch", "jobs", ("jobs",)),
}
_WORKLOADS: Final = {
    word: (group, resource)
    for kind, (group, resource, more) in _KINDS.items()
    for word in (kind, *more)
}
_PODS: Final = frozenset({"pod", "pods", "po"})


class BadTarget(ValueError):
    """A target that cannot be understood; quotes it, and says what can."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An object whose `spec.selector` selects pods."""

    group: str
    resource: str
    name: str


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods by name."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selected:
    """Pods by a LabelSelector, as JSON has it; empty for every pod."""

    selector: Mapping[str, Any]


Target = Workload | Pods | Selected


def parse_target(words: Sequence[str], selector: str | None, *, every: bool) -> Target:
    """What is meant by the arguments of `start`.

    Args:
        words: `KIND/NAME`, `KIND NAME`, or names of pods.
        selector: What `-l` says, as kubectl understands it.
        every: `--all`: every pod of the namespace.

    Raises:
        BadTarget: none of the ways, several at once, or one that cannot be read.
    """
    ways = [bool(words), selector is not None, every]
    if sum(ways) != 1:
        raise BadTarget(
            "say which pods in exactly one way: deployment/NAME, pod/NAME, -l KEY=VALUE, "
            "or --all for every pod of the namespace"
        )
    if every:
        return Selected({})
    if selector is not None:
        return Selected(parse_selector(selector))
    kind = words[0].lower()
    if kind.partition(".")[0] in _WORKLOADS.keys() | _PODS and "/" not in kind:
        # As kubectl takes it, too: the kind, then the names.
        if len(words) == 1:
            raise BadTarget(f"{words[0]}: which one? Write {words[0]}/NAME")
        words = [f"{words[0]}/{word}" for word in words[1:]]
    parsed = [_parse_word(word) for word in words]
    workloads = [target for target in parsed if isinstance(target, Workload)]
    if workloads and len(parsed) > 1:
        raise BadTarget(
            f"{' '.join(words)[:100]}: one capture selects one {workloads[0].resource[:-1]}, or "
            "pods by name; start several captures, or use -l"
        )
    if workloads:
        return workloads[0]
    names = tuple(name for target in parsed if isinstance(target, Pods) for name in target.names)
    return Pods(tuple(dict.fromkeys(names)))


def _parse_word(word: str) -> Workload | Pods:
    kind, slash, name = word.rpartition("/")
    if not _NAME.fullmatch(name):
        raise BadTarget(f"{word[:100]!r}: {name[:80]!r} is no name of a Kubernetes object")
    if not slash or kind.lower() in _PODS:
        return Pods((name,))
    found = _WORKLOADS.get(kind.lower().partition(".")[0])
    if found is None:
        known = ", ".join(f"{kind}/NAME" for kind in ("pod", *_KINDS))
        raise BadTarget(f"{word[:100]!r}: a target is {known}")
    return Workload(*found, name)


def parse_selector(text: str) -> dict[str, Any]:
    """Read `app=web,tier!=cache,env in (a,b),!old` into a LabelSelector.

    Raises:
        BadTarget: a part that no rule of label selectors allows.
    """
    labels: dict[str, str] = {}
    expressions: list[dict[str, Any]] = []
    for part in _split(text):
        requirement = _requirement(part)
        if requirement["operator"] == "=":
            key, value = requirement["key"], requirement["values"][0]
            if labels.setdefault(key, value) != value:
                raise BadTarget(f"selector {text[:100]!r}: {key} cannot have two values at once")
        else:
            expressions.append(requirement)
    selector: dict[str, Any] = {}
    if labels:
        selector["matchLabels"] = labels
    if expressions:
        selector["matchExpressions"] = expressions
    return selector


def _split(text: str) -> list[str]:
    """At commas that are not inside parentheses."""
    parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)]
    if not all(parts):
        raise BadTarget(f"selector {text[:100]!r}: a requirement is empty; write KEY=VALUE")
    return parts


def _requirement(part: str) -> dict[str, Any]:
    match = _SET.fullmatch(part)
    if match is not None:
        values = [value.strip() for value in match["values"].split(",")]
        operator = {"in": "In", "notin": "NotIn"}[match["operator"]]
        return _checked(part, match["key"], operator, values)
    for sign, operator in (("!=", "NotIn"), ("==", "="), ("=", "=")):
        key, found, value = part.partition(sign)
        if found:
            return _checked(part, key.strip(), operator, [value.strip()])
    if part.startswith("!"):
        return _checked(part, part[1:].strip(), "DoesNotExist", None)
    return _checked(part, part, "Exists", None)


def _checked(part: str, key: str, operator: str, values: list[str] | None) -> dict[str, Any]:
    if not _KEY.fullmatch(key):
        raise BadTarget(f"selector {part[:100]!r}: {key[:80]!r} is no label key")
    for value in values or ():
        if not _VALUE.fullmatch(value):
            raise BadTarget(f"selector {part[:100]!r}: {value[:80]!r} is no label value")
    requirement: dict[str, Any] = {"key": key, "operator": operator}
    if values is not None:
        requirement["values"] = values
    return requirement


def name_base(target: Target) -> str:
    """What a capture without a name is called, before the API server makes it unique."""
    match target:
        case Workload(name=name) | Pods(names=(name,)):
            base = name.replace(".", "-")
        case Selected(selector=selector) if not selector:
            base = "all"
        case _:
            base = "capture"
    # The name may have 63 characters, and the API server adds five.
    return f"{base[:57].rstrip('-')}-"
