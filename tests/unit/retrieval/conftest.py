from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.programs import Installation


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    (tmp_path / "store").mkdir()
    opened = DirectoryStore(tmp_path / "store", commit_seconds=0.002)
    opened.start()
    yield opened
    opened.close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


@pytest.fixture
def installation(api: FakeApi, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(api, tmp_path)
    yield made
    made.kill()
