from pathlib import Path

import pytest

from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.kubeconfig import context_names, default_namespace
from tests.unit.kube.small_api import a_kubeconfig


@pytest.fixture
def file(tmp_path: Path) -> str:
    file = tmp_path / "kubeconfig"
    file.write_text(a_kubeconfig("http://127.0.0.1:1"))
    return str(file)


def test_namespace_is_that_of_the_context(file: str) -> None:
    assert default_namespace(file) == "shop"
    assert default_namespace(file, "bare") == "default"
    assert context_names(file) == ["shop", "bare"]


def test_unknown_context_is_named_beside_those_that_are_there(file: str) -> None:
    with pytest.raises(ClusterUnavailable, match="'nix' is not in the kubeconfig; it has shop, ba"):
        default_namespace(file, "nix")


def test_missing_file_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nix")
    with pytest.raises(ClusterUnavailable, match=missing):
        default_namespace(missing)
    assert context_names(missing) == []
