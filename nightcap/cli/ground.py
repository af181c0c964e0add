"""`doctor` looks at what the programs stand on; `ground_checks` says what is to be said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from nightcap.cli import ground_checks
from nightcap.cli.session import SYSTEM, Session
from nightcap.cli.words import Line, Mark

_SECRETS: Final = ("nightcap-webhook-tls", "nightcap-retrieval-tls")
_DEPLOYMENTS: Final = ("nightcap-webhook", "nightcap-retrieval")


class Looker:
    """Reads objects; what may not be read is told apart from what is not there."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.hidden = ""

    def get(self, path: str) -> dict[str, Any] | None:
        """The object, or None; `hidden` says when that is for want of a right."""
        from nightcap.kube.errors import Forbidden, NotFound

        self.hidden = ""
        try:
            return self.session.get(path)
        except NotFound:
            return None
        except Forbidden as error:
            self.hidden = error.message
            return None

    def items(self, path: str) -> list[dict[str, Any]]:
        """The objects of a list; `hidden` as with `get`."""
        from nightcap.kube.errors import Forbidden, NotFound

        self.hidden = ""
        try:
            return list(self.session.items(path))
        except NotFound:
            return []
        except Forbidden as error:
            self.hidden = error.message
            return []

    def unknown(self, what: str) -> Line:
        return Line(Mark.NOTE, f"{what} is not known: {self.hidden}", "ask somebody who may look")


def examine_ground(look: Looker, now: float) -> Iterator[Line]:
    """Nodes, lease, volume, certificates, and network policies of our own namespace."""
    from nightcap.kube import paths

    nodes = look.items(paths.nodes())
    if look.hidden:
        yield look.unknown("whether every node runs native sidecars")
    elif nodes:
        yield ground_checks.check_nodes(nodes)
    lease = look.get(paths.lease(SYSTEM, ground_checks.LEADER_LEASE))
    yield (
        look.unknown("whether a controller leads")
        if look.hidden
        else ground_checks.check_lease(lease, now)
    )
    claim = look.get(paths.volume_claim(SYSTEM, ground_checks.STORE_CLAIM))
    if look.hidden:
        yield look.unknown(f"volume claim {ground_checks.STORE_CLAIM}")
    elif claim is not None or _store_is_a_volume(look):
        yield ground_checks.check_volume(claim)
    for name in _SECRETS:
        secret = look.get(paths.secret(SYSTEM, name))
        # Few may read these, and who may not misses nothing: what follows from them is tried.
        if not look.hidden:
            yield ground_checks.check_secret(name, secret)
    policies = look.items(paths.network_policies(SYSTEM))
    if policies:
        yield from ground_checks.check_network(policies, _labels_of_pods(look))


def _store_is_a_volume(look: Looker) -> bool:
    """With an object store there is no claim, and none is missing."""
    from nightcap.kube import paths

    found = look.get(paths.deployment(SYSTEM, "nightcap-retrieval"))
    volumes = ((found or {}).get("spec") or {}).get("template", {}).get("spec", {}).get("volumes")
    return any("persistentVolumeClaim" in volume for volume in volumes or ())


def _labels_of_pods(look: Looker) -> dict[str, dict[str, str]]:
    from nightcap.kube import paths

    labels = {}
    for name in _DEPLOYMENTS:
        found = look.get(paths.deployment(SYSTEM, name))
        if found is not None:
            labels[name] = found["spec"]["template"]["metadata"].get("labels") or {}
    return labels


def examine_schema(session: Session) -> Line:
    """Try a capture with every field that this program knows, as a dry run."""
    from nightcap.contract import keys
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError, Forbidden

    capture = {
        "apiVersion": f"{keys.GROUP}/{keys.VERSION}",
        "kind": keys.KIND,
        "metadata": {"generateName": "nightcap-doctor-"},
        "spec": ground_checks.EVERY_FIELD,
    }
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    path = paths.packetcaptures(session.namespace)
    try:
        session.client.request("POST", path, query=query, body=capture)
    except Forbidden as error:
        return Line(Mark.NOTE, f"whether the CRD is of this release is not known: {error.message}")
    except ApiError as error:
        return ground_checks.check_schema(error.message)
    return ground_checks.check_schema(None)


def examine_labels(look: Looker) -> Iterator[Line]:
    """Labels of namespaces that look as if they enabled something."""
    from nightcap.kube import paths

    yield from ground_checks.check_labels(look.items(paths.namespaces()))


def examine_egress(look: Looker, namespace: str) -> Iterator[Line]:
    """Network policies of an enabled namespace."""
    from nightcap.kube import paths

    said = ground_checks.check_egress(namespace, look.items(paths.network_policies(namespace)))
    if said is not None:
        yield said


def examine_pinned(look: Looker, namespace: str) -> Iterator[Line]:
    """Sidecars of an enabled namespace that outlived the installation that injected them."""
    from nightcap.kube import paths

    bundle = look.get(paths.config_map(SYSTEM, "nightcap-ca"))
    trusted = ((bundle or {}).get("data") or {}).get("ca.crt")
    # Without a bundle that is the fault, which is told elsewhere.
    if trusted:
        said = ground_checks.check_pinned(namespace, look.items(paths.pods(namespace)), trusted)
        if said is not None:
            yield said
