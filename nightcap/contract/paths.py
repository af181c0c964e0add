"""Where things lie inside the sidecar's container: the webhook mounts them, the sidecar reads them.

`sidecar/dormant.c` repeats three of these; a test compares them.
"""

from typing import Final

ORDERS_DIR: Final = "/run/nightcap/orders"
"""Mount of the downward API volume; swapped as a whole by renaming its link `..data`."""
ORDERS_FILE: Final = "orders"
SPOOL_DIR: Final = "/run/nightcap/spool"
OPEN_MARKER: Final = ".open"
"""In the spool: written by the worker when every capture of its orders is open or has failed."""
TOKEN_DIR: Final = "/run/nightcap/token"  # noqa: S105 - a path
TOKEN_FILE: Final = "token"  # noqa: S105 - a file's name
API_TOKEN_DIR: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Covered by an empty volume, so that the pod's own API token is not in our container."""

DORMANT_PROGRAM: Final = "/nightcap/dormant"
ERRAND_PROGRAM: Final = "/nightcap/errand"
"""What people run by exec and in ephemeral containers."""

ENV_COLLECTOR_NAME: Final = "NIGHTCAP_COLLECTOR_NAME"
"""The TLS name to expect; it carries the generation of the root, such as `g1.collector.…`."""
ENV_COLLECTOR_CA: Final = "NIGHTCAP_COLLECTOR_CA"
"""The root to trust, PEM."""
ENV_SPOOL_BYTES: Final = "NIGHTCAP_SPOOL_BYTES"
"""What all segments in the spool may take together; below the volume's sizeLimit."""
ENV_RELEASE: Final = "NIGHTCAP_RELEASE"


def collector_name(generation: int) -> str:
    """The TLS name of the collector under one root; no DNS ever answers it."""
    return f"g{generation}.collector.nightcap.internal"
