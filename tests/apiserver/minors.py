"""Which minor of Kubernetes the private API server is of.

`NIGHTCAP_KUBERNETES=oldest` in the environment means the lowest that we promise to work with
instead of the cluster's own; `make test-all` runs these tests on both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import programs, toolchain
from tests.cluster.cache import build_lock
from tests.cluster.progress import Progress, to_stderr

VARIABLE = "NIGHTCAP_KUBERNETES"
_PARTS = {"": programs.KUBERNETES, "oldest": programs.KUBERNETES_OLDEST}


def wanted(environ: Mapping[str, str]) -> programs.GoPart:
    """The part that the environment asks for.

    Raises:
        ValueError: it names none that there is.
    """
    name = environ.get(VARIABLE, "")
    if name not in _PARTS:
        raise ValueError(f"{VARIABLE} is {name!r}: leave it out, or say oldest")
    return _PARTS[name]


def apiserver() -> Path:
    """The program; one that is not in the cache is built first, which takes minutes."""
    part = wanted(os.environ)
    if not programs.is_built(part):
        with build_lock(part.name):
            progress = Progress("build", 1, to_stderr)
            with progress.part(f"{part.name} (Go)"):
                go = toolchain.find_go(toolchain.needed_version([part.go_mod]))
                programs.build_go_part(part, go)
    return programs.program(part, "kube-apiserver")
