"""All of a rotation, with certificates that live for seconds, while everybody is at work.

Real programs: the API server, two webhooks, the collector, the controller's certificate loop.
"""

import base64
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from certs.bundle import facts_of
from certs.issue import new_root
from certs.settings import CertificateSettings
from nightcap.kube import paths
from nightcap.kube.client import JSON_PATCH
from tests.apiserver.load import Creating, Sidecar, in_background
from tests.apiserver.site import SYSTEM, Site, a_site
from tests.unit.certs.tls import serial_shown

WEBHOOK = f"nightcap-webhook.{SYSTEM}.svc"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
_ROOT_IS_ENDING_SECONDS = 0.5


def settings(root_seconds: float) -> CertificateSettings:
    return CertificateSettings.standard(
        SYSTEM,
        root_seconds=root_seconds,
        leaf_seconds=root_seconds / 2,
        settle_seconds=root_seconds / 15,
        check_seconds=1.0,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site"), settings(root_seconds=15)) as site:
        yield site


def leaf_shown(port: int, roots: str, name: str = WEBHOOK) -> str:
    """The serial number of the leaf that a server shows to who trusts these roots alone.

    Raises:
        OSError: it is not trusted, or nobody listens.
    """
    return serial_shown(port, ssl.create_default_context(cadata=roots), name)[0]


@dataclass
class Watching:
    """Looks at what the API server trusts and at what the replicas show; for `in_background`."""

    site: Site
    bundles: list[tuple[str, ...]] = field(default_factory=list)
    """Each that there was, the roots in it, in the order of their coming."""
    handshakes: int = 0
    strangers: list[str] = field(default_factory=list)

    def run(self, over: threading.Event) -> None:
        while not over.wait(0.05):
            bundle = self._bundle()
            said = [self._shown(port, "".join(bundle)) for port in self.site.replicas]
            # A bundle that changed meanwhile proves nothing of what was shown.
            if self._bundle() == bundle:
                self.strangers += [fault for fault in said if fault]
                self.handshakes += len(said)

    def _bundle(self) -> tuple[str, ...]:
        bundle = tuple(_PEM.findall(base64.b64decode(self.site.ca_bundle()).decode()))
        if not self.bundles or self.bundles[-1] != bundle:
            self.bundles.append(bundle)
        return bundle

    def _shown(self, port: int, roots: str) -> str:
        try:
            leaf_shown(port, roots)
        except OSError as error:
            return f"{port}: {error}"
        return ""


@dataclass
class Shipping:
    """One sidecar for each generation; all upload in turn for as long as their root lives."""

    site: Site
    creating: Creating
    capture: str
    sidecars: dict[str, Sidecar] = field(default_factory=dict)
    beside_newer: int = 0
    """Uploads of sidecars of one root when there was one of the next already."""

    def turn(self) -> None:
        pod = self.creating.newest
        if pod:
            made = Sidecar(self.site.api, pod, self.capture, self.site.collector_port)
            if self.sidecars.setdefault(made.name, made) is not made:
                made.close()
        newest = next(reversed(self.sidecars), None)
        for name, sidecar in self.sidecars.items():
            if time.time() < facts_of(sidecar.root).expires_at - _ROOT_IS_ENDING_SECONDS:
                sidecar.upload()
                self.beside_newer += name != newest

    def close(self) -> None:
        for sidecar in self.sidecars.values():
            sidecar.close()


def capture_all(site: Site, namespace: str) -> str:
    """A capture that selects every pod of a namespace; its uid."""
    made = site.api.client.request(
        "POST",
        paths.packetcaptures(namespace),
        body={
            "apiVersion": "nightcap.dev/v1alpha1",
            "kind": "PacketCapture",
            "metadata": {"name": "all"},
            "spec": {},
        },
    )
    uid: str = json.loads(made)["metadata"]["uid"]
    return uid


def test_a_rotation_loses_no_injection_and_no_upload(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    work_through(site, 1, capsys)


@pytest.mark.long
def test_many_rotations_lose_no_injection_and_no_upload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_site(tmp_path, settings(root_seconds=24)) as site:
        work_through(site, 5, capsys)


def work_through(site: Site, rotations: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Create pods and ship until so many roots have come to their end; nobody may notice."""
    namespace = site.api.namespace("shop", **{"nightcap.dev/inject": "enabled"})
    capture = capture_all(site, namespace)
    creating = Creating(site.api.client, namespace)
    shipping = Shipping(site, creating, capture)
    watching = Watching(site)
    began_at = time.monotonic()
    try:
        with in_background(creating.run), in_background(watching.run):
            site.eventually("a pod is injected", lambda: creating.newest)
            site.eventually(
                "the webhook knows the capture", lambda: "orders" in str(creating.newest)
            )
            # Until so many roots have lived their whole life and have left the bundle.
            while len(_roots_gone(watching.bundles)) < rotations or not shipping.beside_newer:
                shipping.turn()
                assert time.monotonic() - began_at < 200, site.logs()
            shipping.turn()
    finally:
        shipping.close()
    sidecars = shipping.sidecars.values()
    uploads = sum(sidecar.uploads for sidecar in sidecars)
    failed = [fault for sidecar in sidecars for fault in sidecar.failed]
    with capsys.disabled():
        print(
            f"\n{rotations} rotations in {time.monotonic() - began_at:.0f} s: {creating.injected} "
            f"pods injected, {len(creating.uninjected)} not, {len(creating.refused)} refused, the "
            f"slowest {creating.slowest_seconds:.2f} s; {uploads} uploads of "
            f"{len(sidecars)} generations, {len(failed)} failed ({shipping.beside_newer} beside "
            f"sidecars of a newer root); {watching.handshakes} handshakes with replicas, "
            f"{len(watching.strangers)} not trusted",
            file=sys.stderr,
        )
    assert creating.refused == []
    assert creating.uninjected == []
    assert watching.strangers == []
    assert failed == []
    assert len(sidecars) > rotations
    assert _have_company(watching.bundles)
    assert watching.handshakes > 0


def _roots_gone(bundles: list[tuple[str, ...]]) -> set[str]:
    seen = {root for bundle in bundles for root in bundle}
    return seen - set(bundles[-1]) if bundles else set()


def _have_company(bundles: list[tuple[str, ...]]) -> bool:
    """Whether no root came or went alone: one bundle and the next always share one."""
    return all(set(a) & set(b) for a, b in pairwise(bundles))


@pytest.mark.parametrize("damage", ["wiped", "edited"])
def test_a_damaged_ca_bundle_is_put_right_while_pods_are_created(
    site: Site, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = site.api.namespace(f"shop-{damage}", **{"nightcap.dev/inject": "enabled"})
    creating = Creating(site.api.client, namespace)
    path = paths.mutating_webhook("nightcap")
    root_of_others = base64.b64encode(new_root(1, time.time()).certificate.encode()).decode()
    with in_background(creating.run):
        site.eventually("pods are injected", lambda: creating.injected > 10)
        operations = [
            {"op": "remove", "path": f"/webhooks/{index}/clientConfig/caBundle"}
            if damage == "wiped"
            else {
                "op": "replace",
                "path": f"/webhooks/{index}/clientConfig/caBundle",
                "value": root_of_others,
            }
            for index in range(3)
        ]
        began_at = time.monotonic()
        site.api.client.request("PATCH", path, body=operations, content_type=JSON_PATCH)
        site.eventually("it is right", lambda: site.ca_bundle() not in ("", root_of_others))
        seconds = time.monotonic() - began_at
        before = creating.injected
        site.eventually("pods are injected again", lambda: creating.injected > before + 10)
    with capsys.disabled():
        print(
            f"\ncaBundle {damage}: right again after {seconds:.2f} s, {len(creating.uninjected)} "
            f"pods without sidecar, {len(creating.refused)} refused",
            file=sys.stderr,
        )
    assert creating.refused == []
