"""Asking retrieval's programs: straight, and through the API server's service proxy."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightcap.kube import paths
from tests.apiserver.retrieving import SYSTEM, Retrieval, roles
from tests.unit.retrieval.builders import a_pcap


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


class Speaker:
    """One kept connection, to a program or through the API server's service proxy."""

    def __init__(
        self,
        connection: http.client.HTTPSConnection,
        prefix: str = "",
        passer_on: str = "",
        *,
        is_proxy: bool = False,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._passer_on = passer_on
        self._is_proxy = is_proxy

    def ask(
        self,
        method: str,
        path: str,
        token: str | None,
        body: bytes | None = None,
        **more: str,
    ) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if self._passer_on:
            headers["Authorization"] = f"Bearer {self._passer_on}"
        if token is not None:
            name = "Nightcap-Authorization" if self._is_proxy else "Authorization"
            headers[name] = f"Bearer {token}"
        self._connection.request(method, self._prefix + path, body, headers)
        answer = self._connection.getresponse()
        is_live = "live" in path and answer.status == 200
        content = b"" if is_live else answer.read()
        if is_live:
            # It goes on as long as the capture does: the first packets are enough.
            content = answer.read1(65536)
            self._connection.close()
        sent = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, content, sent)

    def append(self, token: str | None, uid: str, seq: int) -> Answer:
        return self.ask(
            "PATCH",
            f"/v1/captures/{uid}/eth0/{seq}",
            token,
            a_pcap(),
            Upload_Offset="0",
            Upload_Complete="?1",
        )


@contextmanager
def direct(retrieval: Retrieval, program: str = "files") -> Iterator[Speaker]:
    """Straight to one of the programs."""
    with closing(retrieval.connect(program)) as connection:
        yield Speaker(connection)


@contextmanager
def through_proxy(
    retrieval: Retrieval,
    passer_on: str = "",
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Speaker]:
    """As `kubectl nightcap` does it: two tokens, of which the API server keeps one.

    In place of that one it takes the client certificate of a person who has one.
    """
    api = retrieval.api
    context = ssl.create_default_context(cafile=str(api.folder / "ca.crt"))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, context=context, timeout=20)
    prefix = paths.service_proxy(SYSTEM, "https:nightcap-retrieval:443", "")
    with closing(connection):
        if certificate is None:
            passer_on = passer_on or retrieval.token(SYSTEM, "passer-on")
        yield Speaker(connection, prefix, passer_on, is_proxy=True)


def proxy_rights() -> list[dict[str, Any]]:
    """The account `passer-on`, and its right to use the service proxy."""
    return roles(
        SYSTEM,
        {
            "passer-on": [
                {
                    "apiGroups": [""],
                    "resources": ["services/proxy"],
                    "resourceNames": ["https:nightcap-retrieval:443"],
                    "verbs": ["get", "delete"],
                }
            ]
        },
    )
