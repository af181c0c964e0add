"""Manifests that tests are made of: ours with their golden pairs, and other people's.

`NIGHTCAP_CORPUS` (or the folder tests/corpus) names a folder of manifests that other people wrote.
"""

import os
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY / "tests" / "golden" / "injection"
CORPUS = Path(os.environ.get("NIGHTCAP_CORPUS") or REPOSITORY / "tests" / "corpus")


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: JSON's kinds alone, no dates."""


_LOADER_RULES = {
    letter: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for letter, rules in _Loader.yaml_implicit_resolvers.items()
}
_Loader.yaml_implicit_resolvers = _LOADER_RULES


def load_all(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(), Loader=_Loader))


def golden_cases() -> list[Path]:
    return sorted(path for path in GOLDEN.glob("*.yaml") if ".injected" not in path.name)


TEMPLATED = {"Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "ReplicationController"}


def pods_in(document: Any) -> list[dict[str, Any]]:
    """The pods that a manifest makes."""
    match (document or {}).get("kind"):
        case "Pod":
            return [document]
        case "List":
            return [pod for item in document["items"] for pod in pods_in(item)]
        case "CronJob":
            return pods_in({"kind": "Job", **document["spec"]["jobTemplate"]})
        case kind if kind in TEMPLATED:
            return [{"apiVersion": "v1", "kind": "Pod", **document["spec"]["template"]}]
        case _:
            return []


def manifests():
    for path in golden_cases():
        yield path.name, load_all(path)[1]
    for path in sorted((*CORPUS.rglob("*.yaml"), *CORPUS.rglob("*.yml"))):
        found = [pod for document in load_all(path) for pod in pods_in(document)]
        for number, pod in enumerate(found):
            yield f"{path.relative_to(CORPUS)}:{number}", pod


MANIFESTS = dict(manifests())
