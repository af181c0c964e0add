from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.store.base import Store
from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval import s3
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.places import Folder, Place, Prefix
from tests.unit.retrieval.programs import Installation


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the server before tests begin: their time is bounded."""
    needs_server = ("s3_server", "place", "store")
    if any(
        name in needs_server for item in session.items for name in getattr(item, "fixturenames", ())
    ):
        s3.build()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3Server]:
    server = s3.S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DirectoryStore]:
    """A store that is a folder."""
    folder = Folder(tmp_path / "store")
    folder.root.mkdir()
    yield folder.open()
    folder.close()


@pytest.fixture
def prefix(s3_server: s3.S3Server) -> Iterator[Prefix]:
    """A prefix of a bucket."""
    made = Prefix(s3_server, s3_server.new_url())
    yield made
    made.close()


@pytest.fixture(params=["folder", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place for a store: what is tested with it holds for both kinds."""
    if request.param == "objects":
        yield request.getfixturevalue("prefix")
        return
    folder = Folder(tmp_path / "store")
    folder.root.mkdir()
    yield folder
    folder.close()


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


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
