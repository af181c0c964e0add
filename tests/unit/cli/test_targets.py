import pytest

from nightcap.cli.targets import (
    BadTarget,
    Pods,
    Selected,
    Workload,
    name_base,
    parse_selector,
    parse_target,
)

WEB = Workload("apps", "deployments", "web")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["deployment/web"], WEB),
        (["deploy/web"], WEB),
        (["deployments.apps/web"], WEB),
        (["sts/db"], Workload("apps", "statefulsets", "db")),
        (["job/once"], Workload("batch", "jobs", "once")),
        (["pod/web-1"], Pods(("web-1",))),
        (["deployment", "web"], WEB),
        (["pods", "web-1", "web-2"], Pods(("web-1", "web-2"))),
        (["web-1", "pod/web-2", "web-1"], Pods(("web-1", "web-2"))),
    ],
    ids=str,
)
def test_targets_are_read_as_kubectl_reads_them(words: list[str], expected: object) -> None:
    assert parse_target(words, None, every=False) == expected


@pytest.mark.parametrize(
    ("words", "selector", "every", "rule"),
    [
        pytest.param([], None, False, "exactly one way", id="none"),
        pytest.param(["web"], "app=web", False, "exactly one way", id="two ways"),
        pytest.param([], "app=web", True, "exactly one way", id="selector and all"),
        pytest.param(
            ["service/web"], None, False, "'service/web': a target is pod/NAME", id="kind"
        ),
        pytest.param(["deploy"], None, False, "which one[?] Write deploy/NAME", id="kind alone"),
        pytest.param(["deploy", "a", "b"], None, False, "several captures", id="kind and two"),
        pytest.param(["deploy/a", "deploy/b"], None, False, "several captures", id="workloads"),
        pytest.param(["deploy/a", "pod/b"], None, False, "several captures", id="mixed"),
        pytest.param(["../web"], None, False, "a target is", id="path"),
        pytest.param(["pod/Web"], None, False, "'Web' is no name", id="capital"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], selector: str | None, every: bool, rule: str
) -> None:
    with pytest.raises(BadTarget, match=rule):
        parse_target(words, selector, every=every)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app=web", {"matchLabels": {"app": "web"}}),
        ("app==web,a.b/c=", {"matchLabels": {"app": "web", "a.b/c": ""}}),
        (
            "tier!=cache, env in (a, b),x notin (c),!old,new",
            {
                "matchExpressions": [
                    {"key": "tier", "operator": "NotIn", "values": ["cache"]},
                    {"key": "env", "operator": "In", "values": ["a", "b"]},
                    {"key": "x", "operator": "NotIn", "values": ["c"]},
                    {"key": "old", "operator": "DoesNotExist"},
                    {"key": "new", "operator": "Exists"},
                ]
            },
        ),
    ],
)
def test_selectors_are_read_as_kubectl_reads_them(text: str, expected: object) -> None:
    assert parse_selector(text) == expected


@pytest.mark.parametrize(
    "text", ["", "app=web,", "app=we b", "=web", "a=b=c", "app in a", "a=1,a=2"]
)
def test_bad_selector_is_quoted(text: str) -> None:
    with pytest.raises(BadTarget, match="selector"):
        parse_selector(text)


@pytest.mark.parametrize(
    ("target", "base"),
    [
        (WEB, "web-"),
        (Pods(("web.a",)), "web-a-"),
        (Pods(("a", "b")), "capture-"),
        (Selected({}), "all-"),
        (Selected({"matchLabels": {"a": "b"}}), "capture-"),
        (Workload("apps", "deployments", "x" * 80), "x" * 57 + "-"),
    ],
    ids=str,
)
def test_made_up_name_says_what_is_captured_and_leaves_room(target: object, base: str) -> None:
    assert name_base(target) == base  # type: ignore[arg-type]
