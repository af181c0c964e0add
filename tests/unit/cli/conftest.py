from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightcap.cli.program import run
from tests.unit.kube.small_api import SmallApi, a_kubeconfig


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def api() -> Iterator[SmallApi]:
    api = SmallApi()
    yield api
    api.close()


@pytest.fixture
def kubeconfig(api: SmallApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "kubeconfig"
    file.write_text(a_kubeconfig(api.url))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


@pytest.fixture
def nightcap(kubeconfig: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line against the small API, in the namespace `shop`."""

    def ran(*arguments: str) -> Ran:
        capfd.readouterr()
        code = run(["--kubeconfig", str(kubeconfig), *arguments])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return ran
