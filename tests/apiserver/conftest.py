"""One private API server for each of the test run's processes, with our webhook beside it."""

import re
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.apiserver.private import Installation, PrivateApi

Opening = Callable[..., str]


@pytest.fixture(scope="session")
def api(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateApi]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # a first build takes minutes: show its progress
        server = PrivateApi(tmp_path_factory.mktemp("apiserver"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def installation(api: PrivateApi) -> Installation:
    return Installation(api)


@pytest.fixture
def namespace(
    api: PrivateApi, installation: Installation, request: pytest.FixtureRequest
) -> Opening:
    """Opens namespaces of the test's own that are opted in; labels are added."""
    base = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")

    def opening(**labels: str) -> str:
        name = f"{base}-{uuid.uuid4().hex[:6]}"
        return api.namespace(name, **{"nightcap.dev/inject": "enabled", **labels})

    return opening
