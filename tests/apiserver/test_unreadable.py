"""Objects that were valid under another schema, and that nobody can read today."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH
from nightcap.kube.errors import ApiError, Invalid
from tests.apiserver.controllers import SYSTEM, ControllerProcess, a_pod, install
from tests.apiserver.private import BASE, PrivateApi
from tests.apiserver.site import eventually

SHOP, BANK = "shop", "bank"
_OURS = keys.API_VERSIONS[keys.GROUP]


class Installation:
    """A controller, and an API server whose schemas can be lifted for a while."""

    def __init__(self, api: PrivateApi) -> None:
        self.api = api
        install(api)
        for name in (SHOP, BANK):
            api.namespace(name, **{keys.INJECT: keys.INJECT_ENABLED})
        self.controller = ControllerProcess(api)

    def change_as_of_old(self, path: str, change: dict[str, Any]) -> None:
        """Give an object's spec what only another schema lets pass."""
        documents = list(yaml.safe_load_all((BASE / "crd.yaml").read_text()))
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        for document in documents:
            document["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = anything
        self.api.apply(*documents, server_side=True)

        def is_written() -> bool:
            with suppress(ApiError):
                self.change(path, change)
                return True
            return False

        eventually("the old schema", is_written)
        strict = yaml.safe_load_all((BASE / "crd.yaml").read_text())
        self.api.apply(*strict, server_side=True)

        def is_refused() -> bool:
            try:
                body = {**a_capture("x"), "spec": {"snapLength": "many"}}
                query = {"dryRun": "All"}
                captures = paths.packetcaptures(SHOP)
                self.api.client.request("POST", captures, query=query, body=body)
            except Invalid:
                return True
            return False

        eventually("the schema of today", is_refused)

    def change(self, path: str, spec: dict[str, Any]) -> None:
        self.api.client.request("PATCH", path, body={"spec": spec}, content_type=MERGE_PATCH)

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.api.client.request("GET", path))
        return found

    def event(self, namespace: str, kind: str, reason: str) -> str | None:
        """What an Event on some object of a kind says."""
        for event in self.get(paths.events(namespace))["items"]:
            if (event["regarding"]["kind"], event["reason"]) == (kind, reason):
                return str(event["note"])
        return None

    def malformed(self) -> float:
        return self.controller.metric("nightcap_controller_objects_malformed")


def a_capture(name: str) -> dict[str, Any]:
    return {"apiVersion": _OURS, "kind": keys.KIND, "metadata": {"name": name}, "spec": {}}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    # Of its own: what it does to the schemas is nobody else's to see.
    api = PrivateApi(tmp_path_factory.mktemp("unreadable"))
    made = Installation(api)
    try:
        made.controller.start()
        made.controller.wait_ready()
        yield made
    finally:
        made.controller.stop()
        api.close()


def test_a_capture_that_cannot_be_read_says_so_and_takes_nothing_from_its_pods(
    installed: Installation,
) -> None:
    api, captures = installed.api, paths.packetcaptures(SHOP)
    api.create_pod(SHOP, a_pod("web-0", "web"), dry_run=False)

    def orders() -> str | None:
        metadata = installed.get(paths.pod(SHOP, "web-0"))["metadata"]
        text: str | None = metadata.get("annotations", {}).get(keys.ORDERS)
        return text

    api.client.request("POST", captures, body=a_capture("dns"))
    before = eventually("orders", orders)
    path = paths.packetcapture(SHOP, "dns")
    installed.change_as_of_old(path, {"snapLength": "many"})

    def verdict() -> dict[str, Any] | None:
        conditions = installed.get(path).get("status", {}).get("conditions", ())
        return next((c for c in conditions if (c["type"], c["status"]) == ("Valid", "False")), None)

    assert "snapLength" in eventually("a verdict", verdict)["message"]
    assert installed.get(path)["status"]["phase"] == "Error"
    reason = eventually("a verdict", verdict)["reason"]
    said = eventually("an Event", lambda: installed.event(SHOP, keys.KIND, reason))
    assert "snapLength" in said
    assert orders() == before, "what runs is not disturbed"
    installed.change(path, {"snapLength": 96})
    eventually("the mended capture", lambda: '"snap":96' in (orders() or ""))


def test_a_ceiling_that_cannot_be_read_says_so_and_the_last_good_one_holds(
    installed: Installation,
) -> None:
    api, ceilings = installed.api, paths.capture_ceilings(SYSTEM)

    def said() -> str | None:
        return installed.event(SYSTEM, "CaptureCeiling", "NotUnderstood")

    api.create_pod(BANK, a_pod("web-0", "web"), dry_run=False)
    spec = {"namespaces": [BANK], "snapLength": 64}
    ceiling = {
        "apiVersion": _OURS, "kind": "CaptureCeiling", "metadata": {"name": "bank"}, "spec": spec,
    }  # fmt: skip
    api.client.request("POST", ceilings, body=ceiling)
    eventually(
        "the ceiling",
        lambda: '"captureceilings"} 1.0' in (installed.controller.ask("/metrics") or ""),
    )
    path = f"{ceilings}/bank"
    installed.change_as_of_old(path, {"snapLength": "few"})
    assert "snapLength" in eventually("an Event", said)
    assert installed.malformed() == 1
    api.client.request("POST", paths.packetcaptures(BANK), body=a_capture("dns"))

    def is_held() -> bool:
        annotations = installed.get(paths.pod(BANK, "web-0"))["metadata"].get("annotations", {})
        return '"snap":64' in annotations.get(keys.ORDERS, "")

    eventually("orders under the ceiling", is_held)
    # Who leads next tells it as well, though nothing has changed since.
    installed.controller.kill()
    api.kubectl("-n", SYSTEM, "delete", "events", "--all")
    installed.controller.start()
    eventually("an Event", said)
    installed.change(path, {"snapLength": 96})
    eventually("the mended ceiling", lambda: installed.malformed() == 0)
