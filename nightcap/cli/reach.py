"""The way to retrieval: through the API server, which passes a request on to one service.

The API server takes `Authorization` for itself, so the caller's token travels a second
time as `Nightcap-Authorization`; retrieval asks the API server whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from nightcap.cli.session import SYSTEM, Fault, Session
from nightcap.cli.tokens import token

if TYPE_CHECKING:
    from nightcap.kube.client import Download
    from nightcap.kube.errors import ApiError
    from nightcap.kube.light import LightDownload

SERVICE: Final = "https:nightcap-retrieval:443"
TOKEN_SECONDS: Final = 600
"""The shortest life that the API server gives a token."""
LONG_TOKEN_SECONDS: Final = 8 * 3600
"""For an answer that goes on: retrieval asks again and again whether its token still holds."""
RESUMPTIONS: Final = 5
_FROM_RETRIEVAL: Final = "Unknown"
"""Retrieval answers in plain text, which carries no reason of the API server's."""


class Unanswered(Fault):
    """There is no answer, or no more of it: another try may have one."""


def capture_path(namespace: str, name: str, *more: str) -> str:
    """Where retrieval has something of a capture."""
    parts = ["v1", "namespaces", namespace, "packetcaptures", name, *more]
    return "".join(f"/{quote(part, safe='')}" for part in parts)


class Retrieval:
    """Retrieval, as somebody."""

    def __init__(
        self,
        session: Session,
        service_account: str | None = None,
        token_seconds: int = TOKEN_SECONDS,
    ) -> None:
        """Find the token that says who asks.

        Raises:
            Fault: there is none, and how to come by one.
        """
        self._session = session
        self._token = token(session, service_account, token_seconds)

    @contextmanager
    def open(
        self,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Download | LightDownload]:
        """An answer of any size.

        Raises:
            Fault: it is refused, or cannot be had; says by whom, and what to do.
        """
        from nightcap.kube import paths
        from nightcap.kube.errors import ApiError

        sent = {"Nightcap-Authorization": f"Bearer {self._token}", "Accept": "*/*"}
        asked = f"{path}?{urlencode(query)}" if query else path
        try:
            with self._session.client.download(
                paths.service_proxy(SYSTEM, SERVICE, asked), {**sent, **(headers or {})}
            ) as download:
                yield download
        except ApiError as error:
            raise fault_of(error, self._session.namespace) from error

    def resumed(self, path: str, tell: Callable[[int | None], None]) -> Iterator[bytes]:
        """One file of any size; where the connection breaks, it is gone on with.

        Args:
            path: Of something that answers to Range and has an ETag.
            tell: Called once with the size.

        Raises:
            Fault: it is refused, or the connection breaks again and again.
        """
        at, etag, left = 0, "", RESUMPTIONS
        size: int | None = None
        while True:
            again = {"Range": f"bytes={at}-", "If-Range": etag} if at else {}
            try:
                with self.open(path, headers=again) as download:
                    if at and download.status != 206:
                        raise Fault("it changed while it was fetched; fetch it again")
                    if not at:
                        size, etag = download.length, download.etag
                        tell(size)
                    for piece in download:
                        at += len(piece)
                        yield piece
                return
            except Unanswered as fault:
                left -= 1
                if not (at and etag and left):
                    raise Fault(fault.message) from fault

    def json(self, path: str) -> dict[str, Any]:
        with self.open(path) as download:
            found: dict[str, Any] = json.loads(b"".join(download))
            return found


def fault_of(error: ApiError, namespace: str) -> Fault:
    """Why there is no answer: the API server on the way, or retrieval itself."""
    from nightcap.kube import errors

    said = error.message.strip()
    if error.status in (0, 500, 502, 503, 504):
        return Unanswered(
            f"retrieval does not answer: {said}; try again, then: kubectl nightcap doctor; what "
            "pods hold still is fetched by: kubectl nightcap get NAME --from-pods"
        )
    if error.reason == _FROM_RETRIEVAL:
        match error:
            case errors.Forbidden():
                return Fault(
                    f"{said}; ask for the cluster role nightcap-files in namespace {namespace}"
                )
            case errors.Unauthorized():
                return Fault(f"retrieval: {said}; log in again, or use --as-service-account NAME")
            case errors.NotFound():
                return Fault(f"{said}; kubectl nightcap list -n {namespace} shows what there is")
            case _:
                return Fault(f"retrieval: {said}")
    if isinstance(error, errors.Forbidden):
        return Fault(
            f"{said}; ask for the role nightcap-reach in {SYSTEM}: kubectl -n {SYSTEM} create "
            "rolebinding NAME --role=nightcap-reach --user=YOU"
        )
    if isinstance(error, errors.Unauthorized):
        return Fault(f"{said}: the cluster does not accept this kubeconfig's login; log in again")
    if isinstance(error, errors.NotFound):
        return Fault(f"{said}: Nightcap is not installed on this cluster; kubectl nightcap doctor")
    return Fault(said)
