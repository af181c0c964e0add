"""Every kustomization renders, and a real API server takes all of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver.private import PrivateApi

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
FOLDERS = sorted(file.parent for file in MANIFESTS.rglob("kustomization.yaml"))
# Kinds of others that an overlay is made for; that they exist is all that can be checked here.
FOREIGN = {
    "monitoring.coreos.com": ("v1", ["PodMonitor", "PrometheusRule"]),
    "cert-manager.io": ("v1", ["Certificate", "Issuer", "ClusterIssuer"]),
}


def _is_component(folder: Path) -> bool:
    text = (folder / "kustomization.yaml").read_text()
    return bool(yaml.safe_load(text).get("kind") == "Component")


def _foreign_crds() -> Iterator[dict[str, Any]]:
    for group, (version, kinds) in FOREIGN.items():
        for kind in kinds:
            plural = f"{kind.lower()}s"
            schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            yield {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.{group}"},
                "spec": {
                    "group": group,
                    "scope": "Cluster" if kind.startswith("Cluster") else "Namespaced",
                    "names": {"kind": kind, "plural": plural},
                    "versions": [
                        {
                            "name": version, "served": True, "storage": True,
                            "schema": {"openAPIV3Schema": schema},
                        }
                    ],
                },
            }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateApi]:
    """One without an installation, with the kinds and namespaces that a dry run cannot make."""
    api = PrivateApi(tmp_path_factory.mktemp("empty"))
    api.apply(*_foreign_crds())
    api.namespace("nightcap-system")
    api.namespace("tigera-manager")
    for group, (_, kinds) in FOREIGN.items():
        for kind in kinds:
            done = api.kubectl(
                "wait", f"crd/{kind.lower()}s.{group}", "--for=condition=Established"
            )
            assert done.returncode == 0, done.stderr
    yield api
    api.close()


def test_there_is_something_to_look_at() -> None:
    assert {folder.name for folder in FOLDERS} >= {"base", "calico", "alerts"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(MANIFESTS)))
def test_everything_that_a_kustomization_renders_is_accepted(
    folder: Path, server: PrivateApi, tmp_path: Path
) -> None:
    target = folder
    if _is_component(folder):
        # Kustomize takes relative paths alone, and none to a place outside of its own file system.
        target = tmp_path / "overlay"
        target.mkdir()
        up = "../" * (len(tmp_path.resolve().parts))
        overlay = {
            "resources": [f"{up}{(MANIFESTS / 'base').relative_to('/')}"],
            "components": [f"{up}{folder.relative_to('/')}"],
        }
        (target / "kustomization.yaml").write_text(json.dumps(overlay))
    rendered = server.kubectl("kustomize", str(target))
    assert rendered.returncode == 0, rendered.stderr
    done = server.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-",
        stdin=rendered.stdout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Without --validate=ignore a field that nobody knows is an error, of ours at least.
    documents = [d for d in yaml.safe_load_all(rendered.stdout) if d]
    assert len(done.stdout.splitlines()) == len(documents)
