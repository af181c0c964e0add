from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.store.base import Store, StreamMeta
from retrieval.store.writing import DirectoryStore
from tests.fuzz.requests import open_installation
from tests.unit.retrieval import s3
from tests.unit.retrieval.asking import Files, allow
from tests.unit.retrieval.builders import META, POD, STREAM, a_capture, a_pod
from tests.unit.retrieval.collecting import TOKEN, Collector, show
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.merging import OTHER, Merged
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


@pytest.fixture
def port(installation: Installation) -> int:
    """The files program's, in which `READER` may read the capture."""
    api = installation.api
    api.captures = [a_capture()]
    api.users["reader", "api"] = {"username": "reader", "groups": ["people"]}
    asked = ("reader", "get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
    api.allowed.add(asked)
    return installation.start("files")


@pytest.fixture
def growing(installation: Installation) -> DirectoryStore:
    """The store as a collector beside the program writes it."""
    store = DirectoryStore(installation.store, commit_seconds=0.002)
    store.start()
    store.create_stream(STREAM, META)
    return store


@pytest.fixture
def files(store: Store, api: FakeApi) -> Files:
    """One capture; `reader` may get its files, `owner` delete them, `capturer` neither."""
    for user in ("reader", "owner", "capturer", "elsewhere"):
        api.users[user, "api"] = {"username": user, "groups": ["system:authenticated"]}
    api.add_pod_token("sidecar", "storefront", "web-0", POD)
    allow(api, "reader", "get")
    allow(api, "owner", "delete")
    allow(api, "elsewhere", "get", "mail")
    api.captures = [a_capture()]
    store.create_stream(STREAM, StreamMeta(pod="web-0", node="node-a", capture="dns"))
    return Files(store, api)


@pytest.fixture
def merged(store: Store, api: FakeApi) -> Merged:
    api.users["reader", "api"] = {"username": "reader", "groups": ["system:authenticated"]}
    api.users["capturer", "api"] = {"username": "capturer", "groups": ["system:authenticated"]}
    api.allowed.add(
        ("reader", "get", "nightcap.dev", "packetcaptures", "files", "storefront", "dns")
    )
    api.captures = [a_capture()]
    for stream, pod, ips in ((STREAM, "web-0", ("10.0.0.1", "fd00::1")), (OTHER, "web-1", ())):
        store.create_stream(stream, StreamMeta(pod=pod, node="node-a", capture="dns", ips=ips))
    return Merged(store, api)


# merged.pcapng


@pytest.fixture
def collector(store: Store, api: FakeApi) -> Collector:
    """One capture that selects one pod, known to the watch."""
    made = Collector(store, api)
    api.add_pod_token(TOKEN, "storefront", "web-0", POD)
    api.users["controller-token", "api"] = {"username": "controller"}
    api.users["nosy-token", "api"] = {"username": "nosy"}
    api.pods["storefront", "web-0"] = a_pod()
    show(made, a_capture(endTime="2030-01-01T00:00:00Z"))
    return made


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Both programs, and many people and pods."""
    api, opened = open_installation(tmp_path_factory.mktemp("crowd"))
    yield opened
    opened.kill()
    api.close()
