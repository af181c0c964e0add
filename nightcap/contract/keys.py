"""Every label and annotation key, with its meaning and its allowed values.

Source: docs/architecture.md, "Keys".
"""

from typing import Final

GROUP: Final = "nightcap.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "packetcaptures"
KIND: Final = "PacketCapture"

CALICO_GROUP: Final = "projectcalico.org"
"""The group of the optional second API: docs/calico.md. Its objects mean the same captures."""
CALICO_VERSION: Final = "v3"
API_VERSIONS: Final = {
    GROUP: f"{GROUP}/{VERSION}",
    CALICO_GROUP: f"{CALICO_GROUP}/{CALICO_VERSION}",
}
"""Group -> `apiVersion` of the PacketCaptures that are served here."""

INJECT: Final = "nightcap.dev/inject"
"""Label. On a namespace `enabled`: inject into new pods. On a pod `disabled`: never."""
INJECT_ENABLED: Final = "enabled"
INJECT_DISABLED: Final = "disabled"

CAPTURE: Final = "nightcap.dev/capture"
"""Annotation of a pod or namespace: `on` starts, `off` stops its annotation capture."""
CAPTURE_ON: Final = "on"
CAPTURE_OFF: Final = "off"

FILTER: Final = "nightcap.dev/filter"
DURATION: Final = "nightcap.dev/duration"
SNAP_LENGTH: Final = "nightcap.dev/snap-length"
MAX_FILE_SIZE: Final = "nightcap.dev/max-file-size"
ROTATE_EVERY: Final = "nightcap.dev/rotate-every"
MAX_FILES: Final = "nightcap.dev/max-files"
OPTIONS: Final = (FILTER, DURATION, SNAP_LENGTH, MAX_FILE_SIZE, ROTATE_EVERY, MAX_FILES)
"""Annotations that say how; each has the default of the matching PacketCapture field."""

ORDERS: Final = "nightcap.dev/orders"
"""Annotation of a pod, written by webhook (at CREATE) and controller alone: see `orders`."""

INJECTED: Final = "nightcap.dev/injected"
"""Annotation of an injected pod, JSON: `release`, `orders` (highest version), `profile`."""

NOT_INJECTED: Final = "nightcap.dev/not-injected"
"""Annotation of a pod that the webhook left without sidecar, where nothing else of the pod says
why: a reason, or `reason: detail`; see `coverage.REFUSALS`."""

SOURCE: Final = "nightcap.dev/source"
"""Label of a PacketCapture that stands for an annotation: what the annotation is on."""
SOURCE_NAMESPACE: Final = "namespace"
SOURCE_POD: Final = "pod"
SOURCE_CONTROLLER: Final = "controller"

SIDECAR_CONTAINER: Final = "nightcap"
SPOOL_VOLUME: Final = "nightcap-spool"
ORDERS_VOLUME: Final = "nightcap-orders"
TOKEN_VOLUME: Final = "nightcap-token"  # noqa: S105 - the name of a volume
NO_API_VOLUME: Final = "nightcap-no-api-token"
VOLUMES: Final = frozenset({SPOOL_VOLUME, ORDERS_VOLUME, TOKEN_VOLUME, NO_API_VOLUME})

TOKEN_AUDIENCE: Final = "nightcap"  # noqa: S105 - the audience of sidecars' bound tokens
