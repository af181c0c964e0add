"""The client of a command line that people wait for: `KubeClient`'s requests, in a tenth of its
time to start.

For kubeconfigs that `nightcap.kube.quick` understands; programs that run for long use `KubeClient`.
Nothing is retried, and one thread uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlencode, urlsplit

from nightcap.closing import Closing
from nightcap.kube.agent import user_agent
from nightcap.kube.quick import Quick
from nightcap.kube.wire import Head, Wire

_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 30.0


class LightClient:
    """Requests to one API server, over one connection that is kept."""

    def __init__(self, cluster: Quick) -> None:
        """Take a cluster; nothing is sent yet.

        Raises:
            NotQuick: it takes the official client.
        """
        cluster.check()
        self._cluster = cluster
        self._base = urlsplit(cluster.server)
        self._kept: Wire | None = None
        self.read_seconds: float = _READ_SECONDS
        """How long an answer may be silent."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        """One request; the answer's body.

        Args:
            method: HTTP method.
            path: From `nightcap.kube.paths`.
            query: Query parameters.
            body: Anything that JSON can say.
            content_type: Of the body.

        Raises:
            ApiError: A subclass for each way to fail.
        """
        sent = self._headers({} if body is None else {"Content-Type": content_type})
        data = b"" if body is None else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            if self._kept is None or not self._kept.is_usable():
                self.close()
                self._kept = self._connect(self.read_seconds)
            head = self._kept.ask(method, self._target(target), sent, data)
            answer = b"".join(self._kept.pieces())
        except OSError as error:
            self.close()
            _raise_unavailable(error)
        _refuse(head, answer)
        return answer

    def download(
        self, path: str, headers: Mapping[str, str] | None = None, read_timeout: float = 60
    ) -> LightDownload:
        """Open an answer of any size; a context manager that iterates over pieces of bytes.

        Raises:
            ApiError: If the server refuses; while iterating, ClusterUnavailable when the
                connection breaks or is silent for `read_timeout` seconds.
        """
        sent = self._headers(headers or {})
        try:
            wire = self._connect(read_timeout)
        except OSError as error:
            _raise_unavailable(error)
        try:
            head = wire.ask("GET", self._target(path), sent, b"")
            if not 200 <= head.status < 300:
                _refuse(head, b"".join(wire.pieces()))
        except OSError as error:
            wire.close()
            _raise_unavailable(error)
        except BaseException:
            wire.close()
            raise
        return LightDownload(wire, head)

    def bearer_token(self) -> str | None:
        """The token that requests carry; None where a client certificate says who we are."""
        try:
            return self._cluster.token()
        except (OSError, ValueError) as error:
            _raise_no_login(error)

    def close(self) -> None:
        """Close the connection that is kept; the next request opens a new one."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def _connect(self, read_seconds: float) -> Wire:
        connect_seconds = min(_CONNECT_SECONDS, read_seconds)
        try:
            context = self._cluster.tls()
        except (OSError, ValueError) as error:
            _raise_no_login(error)
        return Wire(self._cluster.address, context, connect_seconds, read_seconds)

    def _target(self, path: str) -> str:
        return f"{self._base.path}{path}"

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        token = self.bearer_token()
        login = {"Authorization": f"Bearer {token}"} if token else {}
        sent = {"Host": self._base.netloc, "Accept": "application/json", "User-Agent": user_agent()}
        return {**sent, **more, **login}


class LightDownload(Closing):
    """An answer's body, piece by piece.

    Attributes:
        status: HTTP status; 204 when there is nothing.
        length: Bytes that the server announced; None if it did not.
        etag: What names this state of what is downloaded; empty if nothing does.
    """

    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self.status = head.status
        self.length = head.length
        self.etag = head.headers.get("etag", "")

    def close(self) -> None:
        self._wire.close()

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._wire.pieces()
        except (OSError, ValueError) as error:  # a ValueError where it was closed meanwhile
            _raise_unavailable(error)


def _refuse(head: Head, answer: bytes) -> None:
    if not 200 <= head.status < 300:
        # Here, and not for every question that is answered.
        from nightcap.kube.errors import error_of

        raise error_of(head.status, answer, head.headers.get("retry-after", ""))


def _raise_unavailable(error: Exception) -> NoReturn:
    from nightcap.kube.errors import unavailable

    raise unavailable(error) from error


def _raise_no_login(error: Exception) -> NoReturn:
    from nightcap.kube.errors import ClusterUnavailable

    said = f"what the kubeconfig logs in with cannot be read: {error}"
    raise ClusterUnavailable(0, "NoLogin", said) from error
