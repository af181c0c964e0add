"""Sidecars whose orders, or whose very program, somebody has replaced: what they can ship."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import SYSTEM, Retrieval
from tests.unit.retrieval.builders import a_pcap

NAMESPACE = "forged-orders"
SELECTOR: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}
_PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def retrieval(api: PrivateApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retrieval]:
    made = Retrieval(api, tmp_path_factory.mktemp("retrieval"))
    try:
        api.namespace(NAMESPACE)
        made.start("collector")
        yield made
    finally:
        made.kill()


def append(retrieval: Retrieval, token: str, capture: str) -> tuple[int, str, str]:
    """The first bytes of a stream: status, words and end that the collector answers with."""
    with closing(retrieval.connect("collector")) as connection:
        headers = {
            "Authorization": f"Bearer {token}", "Upload-Offset": "0", "Upload-Complete": "?0",
        }  # fmt: skip
        connection.request("PATCH", f"/v1/captures/{capture}/eth0/1", a_pcap(), headers)
        answer = connection.getresponse()
        until = answer.getheader("Nightcap-Until", "")
        return answer.status, answer.read().decode(), until


def test_whoever_makes_a_sidecar_ship_does_not_pass_the_namespaces_ceiling(
    api: PrivateApi, retrieval: Retrieval
) -> None:
    """They may put a program of their own in the sidecar's place: pods can be given any image."""
    long = retrieval.capture(NAMESPACE, "long", SELECTOR | {"duration": "2h"})
    open_ended = retrieval.capture(NAMESPACE, "open-ended", SELECTOR)
    ceiling = {
        "apiVersion": keys.API_VERSIONS[keys.GROUP], "kind": "CaptureCeiling",
        "metadata": {"name": NAMESPACE}, "spec": {"namespaces": [NAMESPACE], "maxDuration": "1m"},
    }  # fmt: skip
    api.client.request("POST", paths.capture_ceilings(SYSTEM), body=ceiling)
    numbers = count()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        # Another pod each time: until the watch has brought the ceiling they begin streams.
        pod = retrieval.pod(NAMESPACE, f"web-{next(numbers)}", app="web")
        token = retrieval.sidecar_token(pod)
        status, said, _ = append(retrieval, token, long)
        if status != 204:
            break
        assert time.monotonic() < deadline, "uploads are taken"
        time.sleep(0.1)
    assert (status, "maxDuration: " in said) == (403, True), said
    assert not (retrieval.store / NAMESPACE / long / pod["metadata"]["uid"]).exists()
    # What a capture leaves open ends when the ceiling says.
    status, _, until = append(retrieval, token, open_ended)
    assert status == 204
    assert int(until) <= time.time() + 60
