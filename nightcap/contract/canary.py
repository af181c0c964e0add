"""A pod for server-side dry runs: would a new pod of this namespace get its sidecar? Pure."""

from typing import Any, Final

from nightcap.contract import keys

CANARY_ACCOUNT: Final = "nightcap-canary"
"""Service account that may create pods in dry runs alone; see manifests/base/canary.yaml."""
CANARY_POLICY: Final = "nightcap-canary"


def canary_pod(generate_name: str, *, injected: bool = True) -> dict[str, Any]:
    """A pod that no Pod Security level and no ordinary quota minds; it is never made.

    Args:
        generate_name: Who asks, such as `nightcap-doctor-`.
        injected: False for one that opts out: what the namespace says of it without us.
    """
    metadata: dict[str, Any] = {"generateName": generate_name}
    if not injected:
        metadata["labels"] = {keys.INJECT: keys.INJECT_DISABLED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "canary",
                    "image": "nightcap.dev/never-pulled",
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "1Mi"},
                        "limits": {"cpu": "1m", "memory": "1Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def has_sidecar(pod: dict[str, Any]) -> bool:
    """Whether a pod, as the API server answers it, has our sidecar."""
    containers = pod.get("spec", {}).get("initContainers") or ()
    return any(container.get("name") == keys.SIDECAR_CONTAINER for container in containers)
