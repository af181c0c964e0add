"""Names that complete what is being typed; whatever goes wrong, there are just none.

None is asked for twice, and none is waited for long.
"""

from __future__ import annotations

from collections.abc import Callable

from nightcap.cli.session import Session

_LIMIT = "200"
_SECONDS = 3.0


def quietly(ask: Callable[[], list[str]]) -> list[str]:
    """The names, or none: a shell that waits for a completion has no place for an error."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - see above
        import logging

        logging.getLogger(__name__).debug("no completion: %s", error)
        return []


def captures(session: Session) -> list[str]:
    """Captures of the namespace."""
    from nightcap.kube import paths

    return _names(session, lambda namespace: paths.packetcaptures(namespace))


def pods(session: Session) -> list[str]:
    """Pods of the namespace."""
    from nightcap.kube import paths

    return _names(session, lambda namespace: paths.pods(namespace))


def targets(session: Session) -> list[str]:
    """What `start` takes: deployments and pods."""
    from nightcap.kube import paths

    deployments = _names(
        session, lambda namespace: paths.workload_list("apps", namespace, "deployments")
    )
    return [
        *(f"deployment/{name}" for name in deployments),
        *(f"pod/{name}" for name in pods(session)),
    ]


def namespaces(session: Session) -> list[str]:
    """All namespaces."""
    from nightcap.kube import paths

    return _names(session, lambda _namespace: paths.namespaces())


def contexts(session: Session) -> list[str]:
    """Contexts of the kubeconfig."""
    return session.contexts()


def _names(session: Session, path: Callable[[str], str]) -> list[str]:
    session.client.read_seconds = _SECONDS
    page = session.get(path(session.namespace), {"limit": _LIMIT})
    return [item["metadata"]["name"] for item in page.get("items") or ()]
