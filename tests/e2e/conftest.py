"""One installation on one real cluster for all end-to-end tests, a namespace for each.

They never skip themselves: where the cluster cannot be had, they fail and say why.
"""

import sys
from collections.abc import Iterator

import pytest

from demo import stage as stages
from demo.files import Retrieval, reach_retrieval
from demo.stage import Stage
from tests.e2e.shop import Shop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def stage(pytestconfig: pytest.Config) -> Stage:
    """The disposable cluster (or KUBECONFIG's) with this checkout's Nightcap in it."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # building takes minutes: show its progress
        return stages.prepare(lambda line: print(f"cluster: {line}", file=sys.stderr, flush=True))


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
