"""A bad annotation, typed with kubectl on the real cluster."""

import subprocess

from demo.stage import Stage
from tests.e2e.shop import Shop


def annotate(stage: Stage, *arguments: str) -> str:
    """What kubectl says beside its success."""
    command = [stage.kubectl.binary, f"--kubeconfig={stage.kubectl.kubeconfig}", "annotate"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stderr


def test_whoever_types_a_bad_annotation_is_told(stage: Stage, shop: Shop) -> None:
    said = annotate(stage, "namespace", shop.name, "nightcap.dev/filter=port port")
    assert "Warning: nightcap: nightcap.dev/filter: " in said
    assert "syntax error" in said
    shop.create(shop.pod("web"))
    said = annotate(stage, "-n", shop.name, "pod", "web", "nightcap.dev/capture=yes")
    assert "Warning: nightcap: nightcap.dev/capture: 'yes' must be on or off" in said
    assert annotate(stage, "-n", shop.name, "pod", "web", "example.com/note=x") == ""
