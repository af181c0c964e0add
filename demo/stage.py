"""Where the walk-through plays: the disposable cluster, or the one that KUBECONFIG names."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo import installation
from demo.kubectl import Kubectl


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
    """

    kubectl: Kubectl
    images: Images


def prepare(say: Callable[[str], None]) -> Stage:
    """Boot or find the cluster, bring the images, install Nightcap.

    Raises:
        NoStageError: KUBECONFIG is given without kubectl or images to use there.
    """
    given = os.environ.get("KUBECONFIG")
    stage = _given_stage(Path(given)) if given else _disposable_stage(say)
    extra = installation.local_store_volume("node1", "/var/lib/nightcap") if not given else ""
    _ = extra
    return stage


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
    images = Images(*(os.environ[name] for name in names))
    return Stage(Kubectl(binary, kubeconfig), images)


def _disposable_stage(say: Callable[[str], None]) -> Stage:
    raise NotImplementedError
