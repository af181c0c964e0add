"""kill -9 of controllers and API server at any moment, while captures come and go.

Afterwards the orders are compared with what captures and pods say, by a rule that is written
down here once more and shares nothing with the controller's.
"""

import contextlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH
from nightcap.kube.errors import ApiError, Conflict, NotFound
from tests.apiserver.controllers import SYSTEM, ControllerProcess, a_pod, install
from tests.apiserver.private import PrivateApi

SHOP = "shop"
APPS = ("web", "db", "cache")
PODS = 24
CAPTURES = 6
_SETTLE_SECONDS = 120


class Shop:
    """Pods and captures that change at random; the API server may be away."""

    def __init__(self, api: PrivateApi, seed: int) -> None:
        self.api = api
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.changes = 0
        api.namespace(SHOP, **{keys.INJECT: keys.INJECT_ENABLED})
        for number in range(PODS):
            api.create_pod(SHOP, a_pod(f"pod-{number}", self.random.choice(APPS)), dry_run=False)

    def change_something(self) -> None:
        """One change, until the API server has taken it."""
        name = f"capture-{self.random.randrange(CAPTURES)}"
        what = self.random.choice(("create", "delete", "suspend", "resume", "relabel"))
        while True:
            try:
                self._change(what, name)
            except Conflict:
                break  # it is there already
            except ApiError as error:
                if error.status == 404:
                    break
                time.sleep(0.1)
            else:
                break
        self.changes += 1

    def _change(self, what: str, name: str) -> None:
        client, path = self.api.client, paths.packetcapture(SHOP, name)
        match what:
            case "create":
                spec: dict[str, Any] = {"duration": "2h"}
                if self.random.random() < 0.7:
                    spec["selector"] = {"matchLabels": {"app": self.random.choice(APPS)}}
                body = {
                    "apiVersion": keys.API_VERSIONS[keys.GROUP],
                    "kind": keys.KIND,
                    "metadata": {"name": name},
                    "spec": spec,
                }
                client.request("POST", paths.packetcaptures(SHOP), body=body)
            case "delete":
                client.request("DELETE", path)
            case "suspend" | "resume":
                spec = {"spec": {"suspend": what == "suspend"}}
                client.request("PATCH", path, body=spec, content_type=MERGE_PATCH)
            case _:
                pod = paths.pod(SHOP, f"pod-{self.random.randrange(PODS)}")
                labels = {"metadata": {"labels": {"app": self.random.choice(APPS)}}}
                client.request("PATCH", pod, body=labels, content_type=MERGE_PATCH)

    def wait_answered(self) -> None:
        """Wait until the API server is back."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            try:
                self.api.client.request("GET", "/readyz")
            except ApiError:
                assert time.monotonic() < deadline, "the API server does not come back"
                time.sleep(0.1)
            else:
                return

    def wrong(self) -> list[str]:
        """Every pod whose orders are not what captures and labels say now."""
        captures = self._listed(paths.packetcaptures(SHOP))
        there = {capture["metadata"]["uid"] for capture in captures}
        found = []
        for pod in self._listed(paths.pods(SHOP)):
            meta = pod["metadata"]
            wanted = {
                capture["metadata"]["uid"]
                for capture in captures
                if not capture["spec"].get("suspend")
                and capture["spec"].get("selector", {}).get("matchLabels", {}).items()
                <= meta["labels"].items()
            }
            text = meta.get("annotations", {}).get(keys.ORDERS)
            entries = json.loads(text)["captures"] if text else []
            running = {entry["id"] for entry in entries if entry["until"] > time.time()}
            strangers = {entry["id"] for entry in entries} - there
            if running != wanted or strangers:
                found.append(f"{meta['name']}: runs {running}, wanted {wanted}, gone {strangers}")
        return found

    def _listed(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.api.client.request("GET", path))["items"]
        return items


class Replicas:
    """Two controllers, one of which leads."""

    def __init__(self, api: PrivateApi) -> None:
        self._api = api
        self._all = [ControllerProcess(api, number) for number in range(2)]
        for replica in self._all:
            replica.start()
        for replica in self._all:
            replica.wait_ready()

    def wait_leader(self) -> ControllerProcess:
        """Wait until one leads, so that there is work for a kill to break into."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            for replica in self._all:
                if replica.metric("nightcap_controller_leader"):
                    return replica
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def kill(self, leader: ControllerProcess, *, leads: bool) -> None:
        """kill -9 of the leader or of the other one, which is started again.

        What a dead leader holds for ten seconds more is taken from it: two hundred times that
        would be an hour in which nobody works.
        """
        victim = next(replica for replica in self._all if (replica is leader) is leads)
        victim.kill()
        if leads:
            with contextlib.suppress(NotFound):
                self._api.client.request("DELETE", paths.lease(SYSTEM, "nightcap-controller"))
        victim.start()

    def kill_all(self) -> None:
        for replica in self._all:
            replica.kill()

    def written(self) -> int:
        """How often any of them has written orders."""
        return self.said().count('"orders written"')

    def said(self) -> str:
        """The logs of both."""
        return "".join(replica.log.read_text() for replica in self._all)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(10, id="ten"),
        pytest.param(200, id="two hundred", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_after_any_kills_the_orders_are_what_captures_and_pods_say(
    tmp_path: Path, kills: int
) -> None:
    api = PrivateApi(tmp_path)
    replicas: Replicas | None = None
    killed = {"leader": 0, "the other controller": 0, "API server": 0}
    try:
        install(api)
        shop = Shop(api, seed=kills)
        replicas = Replicas(api)
        for number in range(kills):
            leader = replicas.wait_leader()
            for _ in range(1 + shop.random.randrange(4)):
                shop.change_something()
            time.sleep(shop.random.random() * 0.3)
            if number % 6 == 5:
                api.restart(f"--secure-port={api.port}")
                killed["API server"] += 1
                shop.wait_answered()
            else:
                leads = number % 6 != 4
                replicas.kill(leader, leads=leads)
                killed["leader" if leads else "the other controller"] += 1
        deadline = time.monotonic() + _SETTLE_SECONDS
        while wrong := shop.wrong():
            assert time.monotonic() < deadline, "\n".join([*wrong, replicas.said()])
            time.sleep(0.5)
        # Not by chance for a moment: nothing moves them any more.
        time.sleep(1)
        assert shop.wrong() == []
        written = replicas.written()
        assert written > kills, "hardly anything was written that a kill could have broken into"
        print(
            f"killed {killed}; {shop.changes} changes, {written} orders; of {PODS} pods all right"
        )
    finally:
        if replicas is not None:
            replicas.kill_all()
        api.close()
