"""One client of the API server; login, token refresh and TLS are the official client's.

Only its transport is used: typed models cost a hundred times the CPU of the narrow
Structs in `nightcap.contract.objects`. No client-side rate limit: the server's own
priority and fairness decides. Nothing is retried here; who calls knows what is safe.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urlencode

import msgspec
import urllib3
from kubernetes import config
from kubernetes.client import ApiClient, Configuration

from nightcap.closing import Closing
from nightcap.kube.agent import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    user_agent,
)
from nightcap.kube.errors import ApiError, ClusterUnavailable, error_of, unavailable
from nightcap.kube.quick import is_in_cluster

_POOL_SIZE = 64
"""Idle connections kept: one for each of 32 threads, and one for each watch."""
_CHUNK_BYTES = 65536
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_SOCKET_OPTIONS = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    # A watch only listens: without probes it would not notice for minutes that the
    # network, or the machine at the other end, is gone.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class _Said(logging.Handler):
    """What the official client logs of a login that failed, before it goes on as nobody."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(record.getMessage())


class KubeClient:
    """Requests to one API server; safe to use from many threads, and after a fork."""

    def __init__(self, configuration: Any) -> None:
        """Take a `kubernetes.client.Configuration` that is filled in."""
        configuration.connection_pool_maxsize = _POOL_SIZE
        configuration.socket_options = _SOCKET_OPTIONS
        self._configuration = configuration
        self._api = ApiClient(configuration)
        self.read_seconds: float = _READ_SECONDS
        """How long an answer may be silent, where a request does not say."""
        self._pid = os.getpid()

    @classmethod
    def from_environment(cls, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """The cluster that the arguments, `KUBECONFIG`, the pod or `~/.kube/config` name.

        Args:
            kubeconfig: A file; with it or `context`, nothing else is looked at.
            context: A context of that file, or of kubectl's default one.

        Raises:
            ClusterUnavailable: says where a configuration was looked for, or why the program that
                logs in (an exec plugin) has not.
        """
        configuration = Configuration()
        said = _Said()
        logging.getLogger().addHandler(said)
        try:
            if kubeconfig is None and context is None and is_in_cluster():
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=kubeconfig,
                    context=context,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except (config.ConfigException, OSError) as error:
            where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise ClusterUnavailable(
                0, "NoConfiguration", f"no cluster to talk to: {where}: {str(error).rstrip('.')}"
            ) from error
        finally:
            logging.getLogger().removeHandler(said)
        if said.errors and not (configuration.api_key or configuration.cert_file):
            raise ClusterUnavailable(
                0, "NoLogin", f"the kubeconfig's login program failed: {said.errors[-1]}"
            )
        return cls(configuration)

    @property
    def host(self) -> str:
        """The API server's address, for messages."""
        return str(self._configuration.host)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout: tuple[float, float] | None = None,
    ) -> bytes:
        """One request; the answer's body.

        Args:
            method: HTTP method.
            path: From `nightcap.kube.paths`.
            query: Query parameters.
            body: Bytes as they are, or anything msgspec turns into JSON.
            content_type: Of the body; the `*_PATCH` constants for patches.
            headers: More headers.
            timeout: Seconds to connect, and for each read; the client's own if there are none.

        Raises:
            ApiError: A subclass for each way to fail.
        """
        response = self._send(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            headers=headers,
            timeout=timeout or (_CONNECT_SECONDS, self.read_seconds),
            preload=True,
        )
        data: bytes = response.data
        if not 200 <= response.status < 300:
            raise error_of(response.status, data, response.headers.get("Retry-After", ""))
        return data

    def stream_lines(
        self, path: str, query: Mapping[str, str] | None = None, read_timeout: float = 330
    ) -> "LineStream":
        """Open a watch (or a log); a context manager that iterates over lines.

        Raises:
            ApiError: If the server refuses; while iterating, ClusterUnavailable when the
                connection breaks or is silent for `read_timeout` seconds.
        """
        response = self._open(path, query, None, read_timeout)
        return LineStream(response)

    def download(
        self, path: str, headers: Mapping[str, str] | None = None, read_timeout: float = 60
    ) -> "Download":
        """Open an answer of any size; a context manager that iterates over pieces of bytes.

        Raises:
            ApiError: If the server refuses; while iterating, ClusterUnavailable when the
                connection breaks or is silent for `read_timeout` seconds.
        """
        return Download(self._open(path, None, headers, read_timeout))

    def bearer_token(self) -> str | None:
        """The token that requests carry; None where a client certificate says who we are."""
        kind, _, token = self._login().get("Authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" and token.strip() else None

    @property
    def configuration(self) -> Any:
        """The official client's configuration, for connections that are no plain requests."""
        return self._configuration

    def login_header(self) -> str:
        """Value of `Authorization`; empty where a client certificate says who we are."""
        return self._login().get("Authorization", "")

    def close(self) -> None:
        """Close the idle connections; the next request opens new ones."""
        self._api.rest_client.pool_manager.clear()

    def _open(
        self,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        read_timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        """A GET whose answer is not read yet."""
        response = self._send(
            "GET",
            path,
            query=query,
            body=None,
            content_type="",
            headers=headers,
            timeout=(_CONNECT_SECONDS, read_timeout),
            preload=False,
        )
        if not 200 <= response.status < 300:
            try:
                data = response.read()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise unavailable(error) from error
            finally:
                response.close()
            raise error_of(response.status, data, response.headers.get("Retry-After", ""))
        return response

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        headers: Mapping[str, str] | None,
        timeout: tuple[float, float],
        preload: bool,
    ) -> urllib3.BaseHTTPResponse:
        if self._pid != os.getpid():
            # Connections of before a fork belong to the parent: two processes on one
            # TLS stream break it for both.
            self._pid = os.getpid()
            self.close()
        url = f"{self._configuration.host}{path}"
        if query:
            url = f"{url}?{urlencode(query)}"
        try:
            sent = {"Accept": "application/json", "User-Agent": user_agent(), **(headers or {})}
            sent.update(self._login())
            data = body
            if body is not None:
                sent["Content-Type"] = content_type
                if not isinstance(body, bytes):
                    data = msgspec.json.encode(body)
            response: urllib3.BaseHTTPResponse = self._api.rest_client.pool_manager.request(
                method,
                url,
                body=data,
                headers=sent,
                timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
                retries=False,
                redirect=False,
                preload_content=preload,
            )
        except (urllib3.exceptions.HTTPError, config.ConfigException, OSError) as error:
            raise unavailable(error) from error
        return response

    def _login(self) -> dict[str, str]:
        """The Authorization header; reads a token again when it is due."""
        setting = self._configuration.auth_settings().get("BearerToken")
        if not setting or not setting["value"]:
            return {}
        return {"Authorization": str(setting["value"]).strip()}


class LineStream(Closing):
    """Lines of an endless answer; `abort` from any thread ends a blocked read."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._lines = self._read_lines()

    def __iter__(self) -> Iterator[bytes]:
        return self._lines

    def __next__(self) -> bytes:
        return next(self._lines)

    def abort(self) -> None:
        """Shut the socket: the thread that reads sees the end at once."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, RuntimeError, AttributeError, urllib3.exceptions.HTTPError):
            return  # closed already

    def close(self) -> None:
        # Not given back to the pool: the rest of an endless answer is in it.
        self._response.close()

    def _read_lines(self) -> Iterator[bytes]:
        rest = b""
        try:
            for chunk in self._response.stream(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise unavailable(error) from error
        if rest.strip():
            yield rest


class Download(Closing):
    """An answer's body, piece by piece.

    Attributes:
        status: HTTP status; 204 when there is nothing.
        length: Bytes that the server announced; None if it did not.
        etag: What names this state of what is downloaded; empty if nothing does.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self.status = response.status
        said = response.headers.get("Content-Length", "")
        self.length = int(said) if said.isdecimal() else None
        self.etag = response.headers.get("ETag", "")

    def close(self) -> None:
        # Not given back to the pool: who leaves early leaves bytes behind in it.
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.stream(_CHUNK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise unavailable(error) from error


__all__ = [
    "APPLY_PATCH",
    "JSON_PATCH",
    "MERGE_PATCH",
    "STRATEGIC_PATCH",
    "ApiError",
    "Download",
    "KubeClient",
    "LineStream",
]
