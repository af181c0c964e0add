"""What a kubeconfig says beside how to reach its cluster."""

import os
from pathlib import Path

from kubernetes import config

from nightcap.kube.errors import ClusterUnavailable

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def default_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """The namespace that kubectl would take when none is named.

    Args:
        kubeconfig: A file; None for kubectl's own way of finding one.
        context: A context of it; None for its current one.

    Raises:
        ClusterUnavailable: there is no such file, or no such context in it.
    """
    try:
        contexts, current = config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            config_file=kubeconfig
        )
    except (config.ConfigException, OSError) as error:
        if kubeconfig is None and context is None and _OWN_NAMESPACE.exists():
            return _OWN_NAMESPACE.read_text().strip()
        where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise ClusterUnavailable(
            0, "NoConfiguration", f"no cluster to talk to: {where}: {str(error).rstrip('.')}"
        ) from error
    if context is not None:
        current = next((entry for entry in contexts if entry["name"] == context), None)
        if current is None:
            known = ", ".join(entry["name"] for entry in contexts) or "none"
            raise ClusterUnavailable(
                0, "NoContext", f"context {context!r} is not in the kubeconfig; it has {known}"
            )
    return str(current.get("context", {}).get("namespace") or "default")


def context_names(kubeconfig: str | None = None) -> list[str]:
    """Names of all contexts; empty where there is no kubeconfig."""
    try:
        contexts, _ = config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            config_file=kubeconfig
        )
    except (config.ConfigException, OSError):
        return []
    return [str(entry["name"]) for entry in contexts]
