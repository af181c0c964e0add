"""docs/security.md against the manifests: no right that the page does not name."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
RBAC = list(yaml.safe_load_all((ROOT / "manifests" / "base" / "rbac.yaml").read_text()))

# How the page calls what a rule is about.
_WORDS = {
    "namespaces": "namespaces",
    "limitranges": "LimitRanges",
    "resourcequotas": "ResourceQuotas",
    "packetcaptures": "captures",
    "packetcaptures/status": "status",
    "pods": "pods",
    "pods/status": "`pods/status`",
    "events": "Events",
    "secrets": ("Secrets", "certificate"),
    "captureceilings": "CaptureCeilings",
    "configmaps": "ConfigMap",
    "services": ("Service", "services"),
    "endpointslices": "EndpointSlices",
    "leases": "Leases",
    "mutatingwebhookconfigurations": "webhook configurations",
    "validatingwebhookconfigurations": "webhook configurations",
    "tokenreviews": "TokenReviews",
    "subjectaccessreviews": "SubjectAccessReviews",
}


def _rights_on_page(program: str) -> str:
    section = PAGE.partition("## Rights of the programs")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
    current, text = "", ""
    for row in rows:
        current = row[1].strip() or current
        if current == program:
            text += row[2]
    return text


@pytest.mark.parametrize("program", ["webhook", "controller", "retrieval"])
def test_every_right_of_a_program_is_named(program: str) -> None:
    said = _rights_on_page(program)
    rules = [
        rule
        for role in RBAC
        if role["kind"] in ("Role", "ClusterRole")
        and role["metadata"]["name"] == f"nightcap-{program}"
        for rule in role["rules"]
    ]
    assert rules
    for rule in rules:
        for resource in rule.get("resources", ()):
            words = _WORDS[resource]
            named = (words,) if isinstance(words, str) else words
            assert any(word in said for word in named), f"{resource} of {program}"
        for url in rule.get("nonResourceURLs", ()):
            assert f"`{url}`" in said


def test_no_program_may_do_what_the_page_says_none_may() -> None:
    for role in RBAC:
        for rule in role.get("rules", ()):
            resources, verbs = set(rule.get("resources", ())), set(rule["verbs"])
            assert "pods/exec" not in resources
            assert "*" not in resources | verbs | set(rule.get("apiGroups", ()))
            if "pods" in resources:
                assert verbs <= {"get", "list", "watch"}
            if "secrets" in resources and verbs != {"create"}:
                assert rule["resourceNames"], "Secrets by name alone"
                assert role["kind"] == "Role", "Secrets of nightcap-system alone"


def test_roles_for_people_are_those_of_the_page() -> None:
    roles = yaml.safe_load_all((ROOT / "manifests" / "base" / "user-roles.yaml").read_text())
    section = PAGE.partition("## Rights for people")[2].partition("\n## ")[0]
    for role in roles:
        assert f"`{role['metadata']['name']}`" in section
