"""An upgrade from the first code with a whole road, built from this repository's own history.

That release and today's differ in everything that could matter: manifests, rights, the sidecar's
programs, orders, uploads, reports, the store's files. Pods keep the sidecar they were born with.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import installation
from demo import stage as stages
from demo.files import reach_retrieval
from demo.kubectl import wait_for
from demo.stage import Stage
from tests.cluster import images
from tests.e2e.numbered import FILTER, numbers_in, sending
from tests.e2e.shop import CAPTURES, Shop
from tests.e2e.test_install import manifests_of, pods_of, remove

pytestmark = [pytest.mark.long, pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[2]
FIRST = "88dcaa173a0b8dbc20a24fae65d580186cc87219"
"""Walk the whole road on the real cluster."""


@dataclass(frozen=True)
class Older:
    """The first release, as it is installed."""

    manifests: str
    sidecar: str


@pytest.fixture
def older(stage: Stage, tmp_path: Path) -> Iterator[Older]:
    """The cluster with the first release in the place of today's; afterwards today's again."""
    assert stage.disposable is not None, "builds images for the disposable cluster alone"
    tree = tmp_path / "first"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", FIRST], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, f"needs the history down to {FIRST}: {archive.stderr!r}"
    subprocess.run(["tar", "--extract"], cwd=tree, input=archive.stdout, check=True)
    built = images.build_images(tree, ("control", "sidecar"))
    stage.disposable.load_images(images.archives(built.values()))
    first = installation.render(
        stage.kubectl,
        base=tree / "manifests" / "base",
        control_image=built["control"],
        sidecar_image=built["sidecar"],
        local_store=True,
    )
    remove(stage)
    node, folder = stage.disposable.nodes[0].name, stages.store_folder()
    stage.kubectl.apply(installation.local_store_volume(node, str(folder)))
    installation.install(stage.kubectl, first, print)
    yield Older(first, built["sidecar"])
    remove(stage)
    stages.prepare(print)


def test_captures_of_the_first_release_go_on_under_todays_programs(
    stage: Stage, older: Older
) -> None:
    shop = Shop.open(stage, "older")
    try:
        token = shop.person("reader", "nightcap-files")
        shop.start(shop.pod("sender"), shop.pod("target"))
        (old,) = shop.get("pod", "sender")["spec"]["initContainers"]
        assert old["image"] == older.sidecar
        shop.create(shop.capture("numbers", podNames=["sender"], filter=FILTER))
        shop.wait_open("numbers")
        before = pods_of(stage)
        with sending(shop, "sender", "target") as sent:
            wait_for("files before", lambda: shop.status("numbers").get("packets", 0) > 500, 60)
            installation.install(stage.kubectl, manifests_of(stage), print)
            wait_for("every pod replaced", lambda: not before & pods_of(stage), 120)
            # Today's controller gives the old sidecar a second capture, and today's webhook a
            # new pod today's sidecar.
            shop.create(shop.capture("second", podNames=["sender"], filter=FILTER))
            shop.start(shop.pod("late"))
            (new,) = shop.get("pod", "late")["spec"]["initContainers"]
            assert new["image"] == stage.images.sidecar != old["image"]
            shop.wait_open("second")
            had = shop.status("numbers")["packets"]
            wait_for("it goes on", lambda: shop.status("numbers")["packets"] > had + 500, 60)
        for name in ("numbers", "second"):
            shop.run("patch", CAPTURES, name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
        for name in ("numbers", "second"):
            wait_for(
                f"all of {name} shipped",
                lambda name=name: (
                    (shop.condition(name, "Complete") or {}).get("reason") == "AllShipped"
                ),
                90,
            )
        with reach_retrieval(stage.kubectl) as retrieval:
            numbers, second = (
                numbers_in(shop.files(retrieval, name, token)) for name in ("numbers", "second")
            )
        assert sent[0] > 1000
        assert set(numbers) == set(range(sent[0]))
        assert set(numbers.values()) == {1}
        # From when it was open to the end without a gap.
        assert set(second) == set(range(min(second), sent[0]))
        assert set(second.values()) == {1}
    finally:
        shop.close()
