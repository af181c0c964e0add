"""Removing Nightcap, with `make uninstall` and by plain kubectl, is noticed by nobody."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from demo import installation
from demo.kubectl import wait_for
from demo.stage import Stage
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from tests.apiserver.load import Creating, in_background
from tests.apiserver.test_uninstall import GUARD
from tests.cluster.paths import STATE
from tests.e2e.shop import Shop
from tests.e2e.test_availability import creating_in

OURS = "mutatingwebhookconfigurations,validatingwebhookconfigurations,validatingadmissionpolicies,\
validatingadmissionpolicybindings,clusterroles,clusterrolebindings,customresourcedefinitions,\
priorityclasses,namespaces"


def left(stage: Stage) -> set[str]:
    """What there is of us in the cluster."""
    listed = stage.kubectl.run("get", OURS, "-o", "name").split()
    return {name for name in listed if "nightcap" in name}


@contextmanager
def creating_pods(shop: Shop) -> Iterator[Creating]:
    creating = creating_in(shop)
    with in_background(creating.run):
        wait_for("creations under way", lambda: creating.injected > 5, 30)
        yield creating
        before = len(creating.uninjected)
        wait_for("creations go on", lambda: len(creating.uninjected) > before + 5, 30)


def delete_all_pods(stage: Stage, shop: Shop) -> None:
    """All at once: kubectl asks for one after the other."""
    client = KubeClient.from_environment(str(stage.kubectl.kubeconfig))
    client.request(
        "DELETE", paths.pods(shop.name), body={"gracePeriodSeconds": 0}, timeout=(5, 120)
    )
    wait_for("no pod is left", lambda: not stage.kubectl.run("-n", shop.name, "get", "pods"), 60)


def install_again(stage: Stage, manifests: str) -> None:
    if stage.disposable is not None:
        # Its claim has gone, and a volume remembers which claim it was.
        stage.kubectl.run("delete", "persistentvolume", "nightcap-store", "--ignore-not-found")
        node, folder = stage.disposable.nodes[0].name, STATE / "store"
        stage.kubectl.apply(installation.local_store_volume(node, str(folder)))
    installation.install(stage.kubectl, manifests, lambda _: None)


@pytest.mark.long
@pytest.mark.alone
def test_uninstalling_refuses_no_pod_and_leaves_nothing_that_could(
    shop: Shop, stage: Stage
) -> None:
    kubectl = stage.kubectl
    others = left(stage) - {f"namespace/{shop.name}"}
    shop.start(shop.pod("web"))
    assert shop.containers("web") == ["nightcap"]
    manifests = installation.render(
        kubectl,
        control_image=stage.images.control,
        sidecar_image=stage.images.sidecar,
        local_store=stage.disposable is not None,
    )
    said: list[str] = []
    try:
        with creating_pods(shop) as creating:
            installation.uninstall(kubectl, manifests, said.append)
        assert creating.refused == []
        # An injected pod lives: nobody may write its orders now.
        assert left(stage) >= GUARD
        assert "injected pods still run" in said[-1]
        refused = shop.refused("annotate", "pod", "web", "nightcap.dev/orders={}")
        assert "written by the Nightcap controller alone" in refused
        gone = others - left(stage)
        assert "namespace/nightcap-system" in gone
        assert "mutatingwebhookconfiguration.admissionregistration.k8s.io/nightcap" in gone
        delete_all_pods(stage, shop)
        installation.uninstall(kubectl, manifests, said.append)
        assert left(stage) == {f"namespace/{shop.name}"} & left(stage)
        install_again(stage, manifests)
        # By plain kubectl, in the order of the manifests.
        with creating_pods(shop) as creating:
            kubectl.run(
                "delete", "--ignore-not-found", "-k", str(installation.BASE), timeout_seconds=300
            )
        assert creating.refused == []
        assert left(stage) == {f"namespace/{shop.name}"} & left(stage)
        made = shop.run("run", "plain", "--image=x", "--dry-run=server", "-o", "json")
        assert "initContainers" not in json.loads(made)["spec"]
    finally:
        install_again(stage, manifests)
