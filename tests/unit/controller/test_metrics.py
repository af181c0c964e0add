import re
from pathlib import Path
from typing import Any

from controller.metrics import Metrics
from nightcap.contract.objects import ObjectMeta
from nightcap.kube.reflector import Malformed

ROOT = Path(__file__).resolve().parents[3]


class Watch:
    """A watch as metrics see it."""

    name, lists, watches, failures = "pods", 2, 3, 1
    malformed = (Malformed(ObjectMeta(name="odd", namespace="shop"), "it is odd"),)

    def items(self) -> tuple[Any, ...]:
        return ()


def test_every_metric_of_the_controller_has_its_row():
    sources = "".join(file.read_text() for file in (ROOT / "controller").glob("*.py"))
    shown = set(re.findall(r'"(nightcap_[a-z_]+)"', sources))
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("\n## What the controller counts\n")[2].partition("\n## ")[0]
    assert shown == set(re.findall(r"^\| `(nightcap_[a-z_]+)", section, re.MULTILINE))


def test_what_a_watch_did_not_understand_is_counted():
    metrics = Metrics()
    metrics.watch([Watch()], lambda: ())
    name = "nightcap_controller_objects_malformed"
    assert metrics.registry.get_sample_value(name, {"watch": "pods"}) == 1.0
