"""What people are told of objects that a watch cannot read.

An API server keeps what was valid when it was written: under an older schema, or a newer one. Of
captures only the spec can be so (`controller.view.UnreadableCapture`), and their condition
`Valid` says it; everything else that is watched is told of here.
"""

from typing import Final

from controller.actions import RecordEvent, Ref
from nightcap.contract import keys
from nightcap.contract.objects import ObjectMeta

_OURS: Final = keys.API_VERSIONS[keys.GROUP]
KINDS: Final = {
    "packetcaptures": (_OURS, keys.KIND),
    "calico-packetcaptures": (keys.API_VERSIONS[keys.CALICO_GROUP], keys.KIND),
    "captureceilings": (_OURS, "CaptureCeiling"),
    "pods": ("v1", "Pod"),
    "namespaces": ("v1", "Namespace"),
    "services": ("v1", "Service"),
    "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice"),
    "roots": ("v1", "ConfigMap"),
    "switch": ("v1", "ConfigMap"),
}
"""Name of a watch -> (apiVersion, kind) of its objects: items of a list do not say."""


def not_understood(watch: str, metadata: ObjectMeta, error: str) -> RecordEvent:
    """The Event on an object that did not decode.

    Args:
        watch: Name of the watch.
        metadata: Of the object.
        error: Why not.
    """
    api_version, kind = KINDS[watch]
    return RecordEvent(
        regarding=Ref(
            kind=kind,
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            api_version=api_version,
            resource_version=metadata.resource_version,
        ),
        type="Warning",
        reason="NotUnderstood",
        message=(
            f"Nightcap cannot read this {kind}: {error}; what it last read of it holds, "
            "and if it never could, it is as if it were not there. Write it again as the "
            "schema of today has it"
        ),
        action="Watch",
    )
