"""Where the walk-through plays: the disposable cluster, or the one that KUBECONFIG names."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo import installation
from demo.kubectl import Kubectl
from tests.cluster import cluster, images
from tests.cluster.errors import ClusterError
from tests.cluster.paths import STATE


class NoStageError(Exception):
    """No cluster to play on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Images:
    """References of the images that are used, with their tags."""

    control: str
    sidecar: str
    app: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster with Nightcap installed.

    Attributes:
        kubectl: Speaks to it as its administrator.
        images: What runs there.
        disposable: The disposable cluster; None on a given one.
    """

    kubectl: Kubectl
    images: Images
    disposable: cluster.Cluster | None = None


def prepare(say: Callable[[str], None]) -> Stage:
    """Boot or find the cluster, bring the images, install Nightcap.

    Raises:
        NoStageError: there is no cluster, or KUBECONFIG is given without kubectl or images.
        KubectlError: a program does not become ready.
    """
    given = os.environ.get("KUBECONFIG")
    stage = _given_stage(Path(given)) if given else _disposable_stage(say)
    manifests = installation.render(
        stage.kubectl,
        control_image=stage.images.control,
        sidecar_image=stage.images.sidecar,
        local_store=stage.disposable is not None,
    )
    if stage.disposable is not None:
        node = stage.disposable.nodes[0].name
        stage.kubectl.apply(installation.local_store_volume(node, str(store_folder())))
    say("installing Nightcap")
    installation.install(stage.kubectl, manifests, say)
    return stage


def store_folder() -> Path:
    """The disposable cluster's store: a folder of the machine."""
    folder = STATE / "store"
    folder.mkdir(exist_ok=True)
    return folder


def _given_stage(kubeconfig: Path) -> Stage:
    binary = shutil.which("kubectl")
    if binary is None:
        raise NoStageError("KUBECONFIG is given, but there is no kubectl on PATH: install it")
    names = ("CONTROL_IMAGE", "SIDECAR_IMAGE", "DEMO_IMAGE")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise NoStageError(
            f"KUBECONFIG is given, so say which images that cluster can pull: {', '.join(missing)} "
            "(build them from the Dockerfile's targets control, sidecar and demo)"
        )
    return Stage(Kubectl(binary, kubeconfig), Images(*(os.environ[name] for name in names)))


def _disposable_stage(say: Callable[[str], None]) -> Stage:
    try:
        booted = cluster.up()
        built = images.build_images()
        booted.load_images(images.archives(built.values()))
    except ClusterError as error:
        raise NoStageError(str(error)) from error
    say(f"two nodes are Ready; KUBECONFIG={booted.kubeconfig}")
    return Stage(
        Kubectl(str(booted.kubectl), booted.kubeconfig),
        Images(control=built["control"], sidecar=built["sidecar"], app=built["demo"]),
        booted,
    )
