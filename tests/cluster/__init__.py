"""A disposable, real Kubernetes of two nodes on one machine, built from its sources.

`up` and `down` boot and end it; `build_images` makes the project's images for it. The command line
is `python -m tests.cluster`.
"""

from tests.cluster.cluster import Cluster, down, find_running, up
from tests.cluster.errors import BootFailed, ClusterError, CommandFailed, MachineNotReady
from tests.cluster.images import IMAGE_NAMES, archives, build_images

__all__ = [
    "IMAGE_NAMES",
    "BootFailed",
    "Cluster",
    "ClusterError",
    "CommandFailed",
    "MachineNotReady",
    "archives",
    "build_images",
    "down",
    "find_running",
    "up",
]
