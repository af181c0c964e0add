"""As much of an API client as a boot needs: the standard library, and the administrator's key."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from tests.cluster.layout import API_PORT, CONTROL_PLANE

TIMEOUT_SECONDS = 2


def request(pki: Path, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Send one request as the administrator.

    Raises:
        OSError: nobody answers.
    """
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connection = http.client.HTTPSConnection(
        str(CONTROL_PLANE.address), API_PORT, timeout=TIMEOUT_SECONDS, context=context
    )
    headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else _JSON}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the API server answered badly: {error!r}") from error
    finally:
        connection.close()


def is_ready(pki: Path) -> bool:
    """Whether the API server says that it is ready."""
    try:
        return request(pki, "GET", "/readyz")[0] == http.client.OK
    except OSError:
        return False


def get(pki: Path, path: str) -> dict[str, Any] | None:
    """One object or list; None when there is none or nobody answers."""
    try:
        status, body = request(pki, "GET", path)
    except OSError:
        return None
    answer: dict[str, Any] | None = json.loads(body) if status == http.client.OK else None
    return answer


def plain_get_is_ok(host: str, port: int, path: str) -> bool:
    """Whether a plain HTTP health check answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


_JSON = "application/json"
