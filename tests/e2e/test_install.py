"""Installing as the page says, upgrading while captures run, and removing without a trace.

Minutes each, and nobody else may use the cluster meanwhile: `make test-all` runs them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import installation
from demo import stage as stages
from demo.files import reach_retrieval
from demo.installation import NAMESPACE, PROGRAMS
from demo.kubectl import wait_for
from demo.stage import Stage
from tests.e2e.numbered import FILTER, numbers_in, sending
from tests.e2e.shop import Shop
from tests.pages import blocks_of, run

pytestmark = [pytest.mark.long, pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("getting-started.md", "operations.md")
# What comes and goes by itself.
_RESTLESS = ("events", "leases.coordination", "componentstatuses", "metrics.k8s.io")
_NODES = ("Node /", "CSINode /", "Lease kube-node-lease/")


def manifests_of(stage: Stage, release: str = "") -> str:
    """Today's manifests, as `stage` has installed them."""
    rendered = installation.render(
        stage.kubectl,
        control_image=stage.images.control,
        sidecar_image=stage.images.sidecar,
        local_store=stage.disposable is not None,
    )
    # A label of the pods is all that tells this release from the one before.
    part = "app.kubernetes.io/part-of: nightcap\n    spec:"
    assert rendered.count(part) == len(PROGRAMS)
    return (
        rendered.replace(
            part, part.replace("nightcap\n", f"nightcap\n        release: {release}\n")
        )
        if release
        else rendered
    )


def pods_of(stage: Stage) -> set[str]:
    """Uids of the installation's own pods."""
    found = stage.kubectl.json("-n", NAMESPACE, "get", "pods")["items"]
    return {pod["metadata"]["uid"] for pod in found}


def test_an_upgrade_while_captures_run_loses_nothing(stage: Stage, shop: Shop) -> None:
    token = shop.person("reader", "nightcap-files")
    shop.start(shop.pod("sender"), shop.pod("target"))
    shop.create(shop.capture("numbers", podNames=["sender"], filter=FILTER))
    shop.wait_open("numbers")
    before = pods_of(stage)
    try:
        with sending(shop, "sender", "target") as sent:
            installation.install(stage.kubectl, manifests_of(stage, "next"), print)
            wait_for("every pod replaced", lambda: not before & pods_of(stage), 120)
            # A pod that is born into it has its sidecar, and its first packet is captured.
            shop.create(shop.capture("born", podNames=["late"], filter="tcp port 8080"))
            shop.start(shop.pod("late"))
            assert "nightcap" in shop.containers("late")
            shop.wait_open("born")
    finally:
        installation.install(stage.kubectl, manifests_of(stage), print)
    shop.run("patch", "packetcaptures.nightcap.dev", "numbers", "--type=merge", "-p",
             '{"spec":{"suspend":true}}')  # fmt: skip
    wait_for(
        "all of it shipped",
        lambda: (shop.condition("numbers", "Complete") or {}).get("reason") == "AllShipped",
        90,
    )
    with reach_retrieval(stage.kubectl) as retrieval:
        files = shop.files(retrieval, "numbers", token)
    seen = numbers_in(files)
    assert sent[0] > 1000
    assert set(seen) == set(range(sent[0]))
    assert set(seen.values()) == {1}


@pytest.fixture
def removed(stage: Stage) -> Iterator[None]:
    """Nightcap is not on the cluster; afterwards it is again."""
    wait_for("pods of other tests gone", lambda: not installation._injected_pods(stage.kubectl), 90)
    remove(stage)
    yield
    remove(stage)
    stages.prepare(print)


def remove(stage: Stage) -> None:
    """Take everything of ours off the cluster, the store's volume as well."""
    installation.uninstall(stage.kubectl, manifests_of(stage), print)
    # The store's volume is the cluster's, not the installation's.
    stage.kubectl.delete("persistentvolume", "nightcap-store")


def _everything(stage: Stage) -> set[str]:
    """Every object of every kind that can be listed, as `KIND NAMESPACE/NAME`."""
    listed = stage.kubectl.run("api-resources", "--verbs=list", "-o", "name").split()
    kinds = [kind for kind in listed if not kind.startswith(_RESTLESS)]
    text = stage.kubectl.run(
        "get", ",".join(kinds), "--all-namespaces", "--ignore-not-found", "-o",
        "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}",
    )  # fmt: skip
    return {*text.splitlines(), *kinds}


def test_what_was_installed_and_upgraded_as_the_pages_say_goes_without_a_trace(
    stage: Stage, removed: None, surroundings: dict[str, str], tmp_path: Path
) -> None:
    before = _everything(stage)
    left = [each for each in before if "nightcap" in each and not each.startswith(_NODES)]
    assert not left, "by `make uninstall`"
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    control, sidecar = stage.images.control, stage.images.sidecar
    words = {
        f"$REGISTRY/{name}, newTag: 0.1.0": "{}, newTag: {}".format(*image.rsplit(":", 1))
        for name, image in (("control", control), ("sidecar", sidecar))
    }
    blocks = {
        page: [b for b in blocks_of((ROOT / "docs" / page).read_text()) if b.test == "install"]
        for page in PAGES
    }
    stage.kubectl.apply(_default_storage(stage, tmp_path))
    run(blocks["getting-started.md"], tmp_path, surroundings, words)
    shop = Shop.open(stage, "trace")
    shop.start(shop.pod("one", annotations={"nightcap.dev/capture": "on"}))
    assert "nightcap" in shop.containers("one")
    wait_for("its capture", lambda: "pod-one" in shop.run("get", "pcap", "-o", "name"), 30)
    before_upgrade = pods_of(stage)
    _make_another_release(tmp_path / "my-nightcap" / "kustomization.yaml")
    upgrade = [block for block in blocks["operations.md"] if block.heading == "Upgrade"]
    run(upgrade, tmp_path, surroundings, words)
    wait_for("every pod replaced", lambda: not before_upgrade & pods_of(stage), 120)
    shop.wait_open("pod-one")
    stage.kubectl.run("delete", "namespace", shop.name, timeout_seconds=120)
    remove_it = [block for block in blocks["operations.md"] if block not in upgrade]
    run(remove_it, tmp_path, surroundings, words)
    stage.kubectl.delete("storageclass", "page")
    stage.kubectl.delete("persistentvolume", "page")
    wait_for("nothing left", lambda: _everything(stage) <= before, 60)


def _make_another_release(overlay: Path) -> None:
    """A label of all pods: the least that an upgrade changes."""
    release = "labels: [{includeTemplates: true, pairs: {example.com/release: next}}]"
    overlay.write_text(f"{overlay.read_text()}{release}\n")


def _default_storage(stage: Stage, folder: Path) -> str:
    """A default class with one volume, as clusters have it that people use."""
    (folder / "store").mkdir(mode=0o777)
    (folder / "store").chmod(0o777)
    node = stage.kubectl.json("get", "nodes")["items"][0]["metadata"]["name"]
    volume = installation.local_store_volume(node, str(folder / "store"))
    volume = volume.replace("metadata: {name: nightcap-store}", "metadata: {name: page}")
    volume = volume.replace("spec:\n", "spec:\n  storageClassName: page\n", 1)
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "page",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return f"{json.dumps(storage_class)}\n---\n{volume}"
