"""promtool, and what our rules say: without a Prometheus that runs.

promtool comes out of Debian's package, which is unpacked and not installed: it would bring a
service along.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cache import build_lock, cached_part, digest
from tests.cluster.commands import run

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "manifests" / "alerts" / "rules.yaml"
_PACKAGE = "prometheus"
_SERIES = re.compile(r"\b(?:nightcap|apiserver)_\w+")
_HEAD = re.compile(r"# TYPE (?P<name>\w+) (?P<kind>\w+)")
_SAMPLE = re.compile(r"(?P<name>[a-z_]\w*)(?:\{(?P<labels>.*)\})? ")
_LABEL = re.compile(r'(\w+)="')
_MATCHED = re.compile(r"\b((?:nightcap|apiserver)_\w+)\{([^}]*)\}")


def promtool() -> Path:
    """The program, from the cache; the first call downloads it."""

    def unpack(folder: Path) -> None:
        run(["apt-get", "update", "-q"])
        run(["apt-get", "download", "-q", _PACKAGE], cwd=folder)
        (package,) = folder.glob("*.deb")
        run(["dpkg-deb", "--extract", package, folder])
        package.unlink()

    with build_lock("promtool"):
        return cached_part("promtool", digest([_PACKAGE]), unpack) / "usr" / "bin" / "promtool"


def check(*arguments: str | Path) -> None:
    """Run promtool.

    Raises:
        AssertionError: in its words.
    """
    done = subprocess.run(
        [promtool(), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def series_of(expression: str) -> dict[str, set[str]]:
    """The series that an expression reads, each with the labels that it matches on."""
    found: dict[str, set[str]] = {name: set() for name in _SERIES.findall(expression)}
    for name, matchers in _MATCHED.findall(expression):
        found[name] |= set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", matchers))
    return found


def exposed(texts: Iterable[str]) -> dict[str, set[str]]:
    """The series that programs show, each with its labels; none where there is no value yet."""
    # By hand: prometheus_client's parser takes a counter called `..._count` for something else.
    found: dict[str, set[str]] = {}
    for line in "".join(texts).splitlines():
        if head := _HEAD.match(line):
            suffix = "_total" if head["kind"] == "counter" else ""
            for name in (head["name"], head["name"].removesuffix("_total") + suffix):
                found.setdefault(name, set())
        elif sample := _SAMPLE.match(line):
            found.setdefault(sample["name"], set()).update(_LABEL.findall(sample["labels"] or ""))
    return found


def write_operators_rules() -> None:
    """Make `prometheus-rule.yaml` of `rules.yaml`, word by word."""
    head = (
        "# Made of rules.yaml by `python -m tests.prometheus`.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n"
        "  name: nightcap\n  namespace: nightcap-system\n"
        "  labels: {app.kubernetes.io/part-of: nightcap}\nspec:\n"
    )
    plain = RULES.read_text()
    body = plain[plain.index("groups:") :]
    indented = "".join(f"  {line}" if line.strip() else line for line in body.splitlines(True))
    (RULES.parent / "prometheus-rule.yaml").write_text(head + indented)


if __name__ == "__main__":
    write_operators_rules()
