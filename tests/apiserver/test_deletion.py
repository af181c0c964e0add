"""Pods and captures that are deleted while their bytes are on the way, by a real API server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nightcap.contract.keys import TOKEN_AUDIENCE
from nightcap.kube import paths
from nightcap.kube.reviews import TokenReviewer
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import Retrieval, roles
from tests.patience import eventually
from tests.unit.retrieval.builders import FIRST_US, a_pcap, a_record

NAMESPACE = "deletion"
SELECTOR: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}


class World:
    """The programs, a person who may read, and pods that ship by hand."""

    def __init__(self, api: PrivateApi, folder: Path) -> None:
        self.api = api
        self.retrieval = Retrieval(api, folder)
        api.namespace(NAMESPACE)
        everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
        api.apply(*roles(NAMESPACE, {"reader": [everything]}))
        self.reader = self.retrieval.token(NAMESPACE, "reader")
        self.retrieval.start("collector", "files")

    def pod(self, name: str) -> tuple[dict[str, Any], str]:
        """A pod on a node, as only such a one has a grace; and its sidecar's token."""
        body = {
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "node-a", "containers": [{"name": "app", "image": "app"}]},
        }
        pod = self.api.create_pod(NAMESPACE, body, dry_run=False) | {"kind": "Pod"}
        return pod, self.retrieval.sidecar_token(pod)

    def delete_pod(self, name: str, grace_seconds: int) -> None:
        body = {"gracePeriodSeconds": grace_seconds}
        self.api.client.request("DELETE", paths.pod(NAMESPACE, name), body=body)

    def delete_capture(self, name: str) -> None:
        self.api.client.request("DELETE", paths.packetcapture(NAMESPACE, name))

    def append(self, token: str, capture: str, seq: int, body: bytes, offset: int = 0) -> int:
        with closing(self.retrieval.connect("collector")) as connection:
            headers = {
                "Authorization": f"Bearer {token}",
                "Upload-Offset": str(offset),
                "Upload-Complete": "?0",
            }
            connection.request("PATCH", f"/v1/captures/{capture}/eth0/{seq}", body, headers)
            return connection.getresponse().status

    def get(self, capture: str, what: str) -> int:
        with closing(self.retrieval.connect("files")) as connection:
            path = f"/v1/namespaces/{NAMESPACE}/packetcaptures/{capture}/{what}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.reader}"})
            return connection.getresponse().status

    def is_good(self, token: str) -> bool:
        """Whether the API server says so."""
        reviewer = TokenReviewer(self.api.client, ttl_seconds=0)
        return reviewer.review(token, (TOKEN_AUDIENCE,)) is not None

    def stored(self, capture: str) -> list[Path]:
        folder = self.retrieval.store / NAMESPACE / capture
        # Unlike a glob it minds no folder that goes while it looks.
        return [Path(where, name) for where, _, names in os.walk(folder) for name in names]


@pytest.fixture(scope="module")
def world(api: PrivateApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(api, tmp_path_factory.mktemp("retrieval"))
    yield made
    made.retrieval.kill()


def test_a_pod_that_is_going_ships_its_last_bytes(world: World) -> None:
    capture = world.retrieval.capture(NAMESPACE, "going", SELECTOR)
    begun, token = world.pod("begun")
    late, late_token = world.pod("late")
    size = len(a_pcap())
    assert world.append(token, capture, 1, a_pcap()) == 204
    for pod in (begun, late):
        world.delete_pod(pod["metadata"]["name"], grace_seconds=600)
    # Its stream goes on, gets further segments, and even begins.
    assert world.append(token, capture, 1, a_record(FIRST_US + 10**6), size) == 204
    assert world.append(token, capture, 2, a_pcap()) == 204
    assert world.append(late_token, capture, 1, a_pcap()) == 204
    # A collector that begins only now knows nothing of them, and asks.
    world.retrieval.kill("collector")
    world.retrieval.start("collector")
    assert world.append(token, capture, 3, a_pcap()) == 204
    assert world.append(late_token, capture, 2, a_pcap()) == 204


def test_a_pod_that_is_gone_has_a_token_no_more(world: World) -> None:
    capture = world.retrieval.capture(NAMESPACE, "gone", SELECTOR)
    _pod, token = world.pod("gone")
    assert world.append(token, capture, 1, a_pcap()) == 204
    world.delete_pod("gone", grace_seconds=0)
    # The collector remembers a good token for minutes: last bytes come in that time.
    assert world.append(token, capture, 2, a_pcap()) == 204
    # One that begins later asks, and the API server remembers for ten seconds.
    world.retrieval.kill("collector")
    eventually(lambda: not world.is_good(token))
    world.retrieval.start("collector")
    assert world.append(token, capture, 3, a_pcap()) == 401
    assert world.get("gone", "files.zip") == 200


def test_a_deleted_captures_files_are_out_of_reach_at_once_and_gone_soon(world: World) -> None:
    capture = world.retrieval.capture(NAMESPACE, "dns", SELECTOR)
    stays = world.retrieval.capture(NAMESPACE, "stays", SELECTOR)
    _pod, token = world.pod("shipping")
    for uid in (capture, stays):
        assert world.append(token, uid, 1, a_pcap()) == 204
    assert world.get("dns", "files.zip") == 200
    world.delete_capture("dns")
    for what in ("files", "files.zip", "merged.pcapng", "live.pcapng"):
        assert world.get("dns", what) == 404
    # Its sidecars are told to drop it, as soon as the watch has heard.
    eventually(lambda: world.append(token, capture, 2, a_pcap()) == 410)
    assert world.append(token, stays, 2, a_pcap()) == 204
    # One of the same name is another: it begins empty, also while the old bytes are still there.
    again = world.retrieval.capture(NAMESPACE, "dns", SELECTOR)
    assert again != capture
    assert world.get("dns", "files.zip") == 204
    # DESIGN grants an hour; the collector looks twice a minute.
    eventually(lambda: not world.stored(capture), "the files are gone", seconds=120)
    assert world.stored(stays)
    assert world.get("stays", "files.zip") == 200
