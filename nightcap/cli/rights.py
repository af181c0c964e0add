"""What the caller may do, as `doctor` tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from nightcap.cli.session import Session
from nightcap.cli.words import Line, Mark

# (what for, role, verb, group, resource, subresource)
_RIGHTS: Final = (
    ("start and stop captures", "nightcap-capture", "create", "nightcap.dev", "packetcaptures", ""),
    ("fetch files", "nightcap-files", "get", "nightcap.dev", "packetcaptures", "files"),
)


def examine_rights(session: Session) -> Iterator[Line]:
    """What the caller may do in the namespace, and how to ask for the rest."""
    for purpose, role, verb, group, resource, subresource in _RIGHTS:
        attributes = {
            "namespace": session.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        if may(session, attributes):
            yield Line(Mark.OK, f"you may {purpose} in namespace {session.namespace}")
        else:
            yield Line(
                Mark.NOTE,
                f"you may not {purpose} in namespace {session.namespace}",
                f"ask for it: kubectl -n {session.namespace} create rolebinding NAME "
                f"--clusterrole={role} --user=YOU",
            )
    if session.client.bearer_token() is None:
        yield Line(
            Mark.NOTE,
            "you log in with a client certificate, which retrieval cannot check",
            "get and follow ask as a service account of the namespace that may read the files, if "
            "you may; or say which: --as-service-account NAME",
        )


def may(session: Session, attributes: dict[str, str]) -> bool:
    """Whether the caller may do something, as the API server sees it."""
    from nightcap.kube import paths

    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = json.loads(session.client.request("POST", paths.SELF_ACCESS_REVIEWS, body=review))
    return bool(answer["status"].get("allowed"))
