"""Names that complete what is being typed; whatever goes wrong, there are just none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nightcap.cli.session import Session

_LIMIT = "200"


def quietly(ask: Callable[[], list[str]]) -> list[str]:
    """The names, or none: a shell that waits for a completion has no place for an error."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - see above
        logging.getLogger(__name__).debug("no completion: %s", error)
        return []


def captures(session: Session) -> list[str]:
    """Captures of the namespace."""
    from nightcap.kube import paths

    return _names(session, paths.packetcaptures(session.namespace))


def pods(session: Session) -> list[str]:
    """Pods of the namespace."""
    from nightcap.kube import paths

    return _names(session, paths.pods(session.namespace))


def targets(session: Session) -> list[str]:
    """What `start` takes: deployments and pods."""
    from nightcap.kube import paths

    namespace = session.namespace
    deployments = _names(session, paths.workload_list("apps", namespace, "deployments"))
    return [
        *(f"deployment/{name}" for name in deployments),
        *(f"pod/{name}" for name in pods(session)),
    ]


def namespaces(session: Session) -> list[str]:
    """All namespaces."""
    from nightcap.kube import paths

    return _names(session, paths.namespaces())


def contexts(session: Session) -> list[str]:
    """Contexts of the kubeconfig."""
    from nightcap.kube.kubeconfig import context_names

    return context_names(session.kubeconfig)


def _names(session: Session, path: str) -> list[str]:
    page = session.get(path, {"limit": _LIMIT})
    return [item["metadata"]["name"] for item in page.get("items") or ()]
