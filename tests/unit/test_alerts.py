"""The rules by promtool: they parse, they fire when they should, and are silent otherwise."""

from pathlib import Path

import pytest
import yaml

from tests import prometheus

ALERTS = prometheus.ROOT / "manifests" / "alerts"


def test_rules_are_well_formed() -> None:
    prometheus.check("check", "rules", prometheus.RULES)


def test_rules_fire_when_they_should_and_are_silent_otherwise(tmp_path: Path) -> None:
    tests = Path(__file__).parent / "alerts.test.yaml"
    file = tmp_path / "alerts.yaml"
    file.write_text(tests.read_text().replace("RULES", str(prometheus.RULES)))
    prometheus.check("test", "rules", file)


def test_each_rule_is_tested_both_ways() -> None:
    text = (Path(__file__).parent / "alerts.test.yaml").read_text()
    for rule in prometheus.rules():
        assert f"alertname: {rule['alert']}," in text, "silent"
        assert f'alertname="{rule["alert"]}"' in text, "firing"


def test_the_operators_rules_are_the_plain_ones() -> None:
    """To write them anew: python -m tests.prometheus."""
    written = yaml.safe_load((ALERTS / "prometheus-rule.yaml").read_text())
    assert written["spec"] == yaml.safe_load(prometheus.RULES.read_text())


@pytest.mark.parametrize("rule", prometheus.rules(), ids=lambda rule: rule["alert"])
def test_each_alert_says_what_to_do(rule: dict) -> None:
    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    page = (prometheus.ROOT / "docs" / "operations.md").read_text()
    assert f"`{rule['alert']}`" in page
