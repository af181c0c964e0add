"""One installation on one real cluster for all end-to-end tests, a namespace for each.

They never skip themselves: where the cluster cannot be had, they fail and say why.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import stage as stages
from demo.files import Retrieval, reach_retrieval
from demo.stage import Stage
from tests.e2e.shop import Shop

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        # The hook is given every test of the run.
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def lock_file(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One file for all of the test run's processes."""
    folder = tmp_path_factory.getbasetemp()
    return (folder if worker_id == "master" else folder.parent) / "cluster.lock"


@contextmanager
def _admitted(file: Path, *, alone: bool) -> Iterator[None]:
    """In a room for many, or for one; who waits for the room keeps the door shut for others."""
    door = file.with_suffix(".door")
    with door.open("a") as waiting, file.open("a") as room:
        fcntl.flock(waiting, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(waiting, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def stage(pytestconfig: pytest.Config, lock_file: Path) -> Stage:
    """The disposable cluster (or KUBECONFIG's) with this checkout's Nightcap in it."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    # Building takes minutes: show its progress.
    with capture.global_and_fixture_disabled(), _admitted(lock_file, alone=True):
        return stages.prepare(lambda line: print(f"cluster: {line}", file=sys.stderr, flush=True))


@pytest.fixture(autouse=True)
def _company(request: pytest.FixtureRequest, lock_file: Path) -> Iterator[None]:
    """Let tests run side by side, but for those that kill what the others need."""
    alone = request.node.get_closest_marker("alone") is not None
    with _admitted(lock_file, alone=alone):
        yield


@pytest.fixture
def retrieval(stage: Stage) -> Iterator[Retrieval]:
    with reach_retrieval(stage.kubectl) as reached:
        yield reached


@pytest.fixture
def shop(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """An opted-in namespace of the test's own."""
    opened = Shop.open(stage, request.node.name)
    yield opened
    opened.close()


@pytest.fixture
def surroundings(stage: Stage, tmp_path: Path) -> dict[str, str]:
    """A reader's environment: kubectl and its plugin on PATH, the cluster's kubeconfig."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(stage.kubectl.binary)
    plugin = programs / "kubectl-nightcap"
    plugin.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m nightcap.cli "$@"\n')
    plugin.chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(stage.kubectl.kubeconfig),
    }
