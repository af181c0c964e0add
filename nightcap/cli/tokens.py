"""The token that says to retrieval who asks.

Retrieval can check tokens alone. Who logs in with a client certificate asks as a service account of
the namespace that may read the files, by a short-lived token, where their rights allow that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from nightcap.cli import output as _out
from nightcap.cli.session import Fault, Session

_MOST_ACCOUNTS: Final = 20


def token(session: Session, service_account: str | None, seconds: int) -> str:
    """A token of the caller's, or of a service account.

    Args:
        session: Whose rights count.
        service_account: In the session's namespace; None for the caller, if they have a token.
        seconds: Life of a token that has to be made.

    Raises:
        Fault: there is none, and how to come by one.
    """
    if service_account is None:
        own = session.client.bearer_token()
        if own is not None:
            return own
        service_account = _account_that_may(session)
        _out.note(
            f"your kubeconfig logs in with a client certificate; asking as service account "
            f"{service_account} of namespace {session.namespace}"
        )
    return _make(session, service_account, seconds)


def _account_that_may(session: Session) -> str:
    """A service account of the namespace that may read files there."""
    from nightcap.kube.errors import ApiError

    namespace = session.namespace
    try:
        found = next((a for a in _accounts(session) if _may(session, a)), None)
    except ApiError:
        found = None  # not allowed to look: then somebody has to say
    if found is None:
        _refuse_where_not_installed(session)
        raise Fault(
            "this kubeconfig logs in with a client certificate, which retrieval cannot check. Use "
            "a kubeconfig with a token, or --as-service-account NAME: an account of namespace "
            f"{namespace} that may get packetcaptures/files, for which you may create "
            f"serviceaccounts/token. To make one: kubectl -n {namespace} create serviceaccount "
            f"analyst; kubectl -n {namespace} create rolebinding analyst-files "
            f"--clusterrole=nightcap-files --serviceaccount={namespace}:analyst"
        )
    return found


def _refuse_where_not_installed(session: Session) -> None:
    """Nobody may read files there, and no account helps.

    Raises:
        NotFound: no captures are served.
    """
    from nightcap.kube import paths
    from nightcap.kube.errors import Forbidden

    with contextlib.suppress(Forbidden):
        session.get(paths.packetcaptures(session.namespace), {"limit": "1"})


def _accounts(session: Session) -> Iterator[str]:
    from nightcap.kube import paths

    every = session.items(paths.service_accounts(session.namespace))
    return (item["metadata"]["name"] for item in islice(every, _MOST_ACCOUNTS))


def _may(session: Session, account: str) -> bool:
    from nightcap.contract import keys
    from nightcap.kube import paths

    namespace = session.namespace
    review: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespace}",
                "system:authenticated",
            ],
            "resourceAttributes": {
                "namespace": namespace,
                "verb": "get",
                "group": keys.GROUP,
                "resource": keys.PLURAL,
                "subresource": "files",
            },
        },
    }
    answer = json.loads(session.client.request("POST", paths.ACCESS_REVIEWS, body=review))
    return bool(answer["status"].get("allowed"))


def _make(session: Session, account: str, seconds: int) -> str:
    from nightcap.kube import paths
    from nightcap.kube.errors import Forbidden, NotFound

    namespace = session.namespace
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }
    path = paths.service_account_token(namespace, account)
    try:
        made = json.loads(session.client.request("POST", path, body=body))
    except NotFound as error:
        raise Fault(
            f"service account {account!r} does not exist in namespace {namespace}; "
            f"kubectl -n {namespace} get serviceaccounts shows what does"
        ) from error
    except Forbidden as error:
        raise Fault(
            f"{error.message}; ask for the right to create serviceaccounts/token of "
            f"{account} in namespace {namespace}"
        ) from error
    return str(made["status"]["token"])
