"""The reflector against a real API server that is restarted, slow, cut off, or has lost history."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nightcap.contract.objects import ConfigMap
from nightcap.kube import paths
from nightcap.kube import reflector as reflector_module
from nightcap.kube.client import MERGE_PATCH, KubeClient
from nightcap.kube.reflector import Change, Reflector
from tests.apiserver.balancer import Balancer
from tests.apiserver.private import PrivateApi
from tests.apiserver.site import eventually

PLACE = "followed"
LIST = paths.config_maps(PLACE)


class Site:
    """An API server of the test's own, and a network before it that can be cut and slowed."""

    def __init__(self, folder: Path) -> None:
        self.api = PrivateApi(folder)
        self.network = Balancer([self.api.port])
        self.api.namespace(PLACE)

    def client(self) -> KubeClient:
        """Through the network."""
        file = self.api.folder / "through-network"
        text = self.api.kubeconfig.read_text()
        file.write_text(text.replace(f":{self.api.port}", f":{self.network.port}"))
        return KubeClient.from_environment(str(file))

    def put(self, name: str, value: str = "1") -> None:
        body = {"metadata": {"name": name}, "data": {"value": value}}
        self.api.client.request("POST", LIST, body=body)

    def change(self, name: str, value: str) -> None:
        path, body = paths.config_map(PLACE, name), {"data": {"value": value}}
        self.api.client.request("PATCH", path, body=body, content_type=MERGE_PATCH)

    def delete(self, name: str) -> None:
        self.api.client.request("DELETE", paths.config_map(PLACE, name))

    def restart(self) -> None:
        """kill -9 of the API server, and wait until it is back."""
        self.api.restart(f"--secure-port={self.api.port}")
        self.api.wait_ready()

    def truth(self) -> dict[str, str]:
        """What there is, as the API server says when it is asked by somebody else."""
        items = json.loads(self.api.client.request("GET", LIST))["items"]
        return {item["metadata"]["name"]: (item.get("data") or {}).get("value") for item in items}


class Copy:
    """What a reflector holds, and what it told, which has to come to the same."""

    def __init__(self, client: KubeClient, page_size: int = 500) -> None:
        self.told: dict[str, Any] = {}
        self.kinds: list[tuple[str, str]] = []
        self.reflector: Reflector[ConfigMap] = Reflector(
            client,
            LIST,
            msgspec.json.Decoder(ConfigMap).decode,
            name="copy",
            on_change=self._on_change,
            page_size=page_size,
        )
        self.reflector.start()

    def _on_change(self, change: Change[ConfigMap]) -> None:
        name = change.object.metadata.name
        self.kinds.append((change.kind, name))
        if change.kind == "deleted":
            del self.told[name]
        else:
            self.told[name] = (change.object.data or {}).get("value")

    def held(self) -> dict[str, Any]:
        return {
            item.metadata.name: (item.data or {}).get("value") for item in self.reflector.items()
        }

    def wait_same(self, site: Site) -> None:
        """Wait until the copy, and what was told, are what there is."""
        eventually(
            "the copy is what there is",
            # The truth last: the copy never runs ahead of it.
            lambda: self.held() == self.told == site.truth(),
            lambda: f"held {self.held()}, told {self.told}, there is {site.truth()}",
        )


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector_module, "_MAX_DELAY_SECONDS", 1.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("reflected"))
    yield site
    site.network.close()
    site.api.close()


@pytest.fixture
def follow(site: Site) -> Iterator[Callable[..., Copy]]:
    begun: list[Copy] = []
    clients: list[KubeClient] = []

    def start(client: KubeClient | None = None, **options: int) -> Copy:
        clients.append(client or site.client())
        begun.append(Copy(clients[-1], **options))
        return begun[-1]

    yield start
    for copy in begun:
        copy.reflector.stop()
    for client in clients:
        client.close()


def test_an_api_server_that_is_killed_and_comes_back_is_followed(
    site: Site, follow: Callable[..., Copy]
) -> None:
    site.put("before-restart")
    copy = follow()
    copy.wait_same(site)
    for number in range(3):
        site.restart()
        site.put(f"after-restart-{number}")
        site.change("before-restart", f"restart {number}")
        copy.wait_same(site)
    assert copy.reflector.failures >= 3


def test_what_happened_behind_a_compacted_history_is_told_as_differences(
    site: Site, follow: Callable[..., Copy]
) -> None:
    for name in ("stays", "changes", "goes", "goes-and-returns"):
        site.put(name)
    copy = follow()
    copy.wait_same(site)
    lists, told = copy.reflector.lists, len(copy.kinds)
    site.network.ports = [1]  # nobody listens there
    site.network.cut()
    site.change("changes", "2")
    site.delete("goes")
    site.delete("goes-and-returns")
    site.put("goes-and-returns", "another")
    site.put("comes")
    site.api.compact()
    site.restart()  # its own memory of what was is gone as well
    site.network.ports = [site.api.port]
    copy.wait_same(site)
    assert copy.reflector.lists > lists
    assert sorted(copy.kinds[told:]) == [
        ("added", "comes"),
        ("added", "goes-and-returns"),
        ("deleted", "goes"),
        ("deleted", "goes-and-returns"),
        ("modified", "changes"),
    ]
    site.change("stays", "and goes on")
    copy.wait_same(site)


def test_a_connection_that_breaks_goes_on_where_it_was_without_a_list(
    site: Site, follow: Callable[..., Copy]
) -> None:
    site.put("seen")
    copy = follow()
    copy.wait_same(site)
    eventually("it watches", lambda: copy.reflector.watches)
    for number in range(3):
        watches = copy.reflector.watches
        site.network.cut()
        site.change("seen", f"cut {number}")
        copy.wait_same(site)
        assert copy.reflector.watches > watches
    assert copy.reflector.lists == 1


def test_a_slow_network_and_an_api_server_that_pauses_only_cost_time(
    site: Site, follow: Callable[..., Copy]
) -> None:
    for number in range(40):
        site.put(f"slow-{number}", "x" * 500)
    site.network.piece_bytes, site.network.pause_seconds = 1024, 0.005
    try:
        copy = follow(page_size=10)
        copy.wait_same(site)
        pid = site.api.pid_of(f"--secure-port={site.api.port}")
        for number in range(3):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(1)
            os.kill(pid, signal.SIGCONT)
            site.change("slow-1", f"pause {number}")
            copy.wait_same(site)
    finally:
        site.network.piece_bytes, site.network.pause_seconds = 65536, 0.0
    assert copy.reflector.lists == 1
    assert copy.reflector.failures == 0


class Interrupted(KubeClient):
    """Lets something happen after the second page of the first list."""

    happen: Callable[[], None]
    pages = 0

    def __init__(self, configuration: Any) -> None:
        super().__init__(configuration)
        self.happened = threading.Event()

    def request(self, method: str, path: str, **options: Any) -> bytes:
        data = super().request(method, path, **options)
        self.pages += 1
        if self.pages == 2:
            self.happen()
            self.happened.set()
        return data


@pytest.mark.parametrize("expires", [False, True], ids=["changes", "token expires"])
def test_a_list_in_pages_is_whole_whatever_happens_between_them(
    site: Site, follow: Callable[..., Copy], expires: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(26):
        site.put(f"page-{expires}-{number:02}".lower())
    client = Interrupted(site.client().configuration)

    def happen() -> None:
        site.delete(f"page-{expires}-00".lower())
        site.change(f"page-{expires}-24".lower(), "2")
        site.put(f"zz-{expires}".lower())
        if expires:
            # Neither etcd nor the server remembers the state that the token is of.
            site.api.compact()
            site.restart()

    client.happen = happen
    copy = follow(client, page_size=5)
    eventually("the first list is interrupted", client.happened.is_set)
    copy.wait_same(site)
    assert client.pages > 5
    assert copy.reflector.lists == 1
    began_anew = any(record.message == "watch history lost" for record in caplog.records)
    assert began_anew == expires
