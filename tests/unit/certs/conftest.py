from collections.abc import Iterator

import pytest

from tests.unit.kube.small_api import SmallApi


@pytest.fixture
def api() -> Iterator[SmallApi]:
    server = SmallApi()
    yield server
    server.close()
