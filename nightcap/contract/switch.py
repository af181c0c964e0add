"""The switch of injection: one ConfigMap in Nightcap's own namespace. Pure.

Where it is missing, or says anything but `off`, new pods get their sidecar.
"""

from collections.abc import Mapping
from typing import Final

from nightcap.contract.objects import ConfigMap

SWITCH: Final = "nightcap-injection"
"""Name of the ConfigMap."""
INJECTION: Final = "injection"
OFF: Final = "off"
REASON: Final = "reason"
"""Key: why it is off, a sentence."""
SINCE: Final = "since"
"""Key: since when, RFC 3339."""
TURN_ON: Final = "kubectl -n {namespace} delete configmap nightcap-injection"


def is_off(switch: ConfigMap | None) -> bool:
    """Whether new pods are to be left as they are."""
    return switch is not None and _data(switch).get(INJECTION, "").strip().lower() == OFF


def why_off(switch: ConfigMap | None) -> str:
    """Why injection is off, a sentence; empty while it is on."""
    if switch is None or not is_off(switch):
        return ""
    return _data(switch).get(REASON, "").strip() or "somebody switched it off"


def switched_off(reason: str, at: str) -> dict[str, str]:
    """The `data` that switches injection off.

    Args:
        reason: A sentence.
        at: Now, RFC 3339.
    """
    return {INJECTION: OFF, REASON: reason, SINCE: at}


def _data(switch: ConfigMap) -> Mapping[str, str]:
    return switch.data or {}
