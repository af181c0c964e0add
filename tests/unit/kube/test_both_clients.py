"""What holds for both clients: the official one's transport, and the one of the command line."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nightcap.kube.agent import MERGE_PATCH
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from nightcap.kube.light import LightClient
from nightcap.kube.quick import load
from tests.unit.kube.small_api import SmallApi, a_kubeconfig

OTHER_UID = {"causes": [{"field": "metadata.uid", "message": "field is immutable"}]}
ClientOf = Callable[..., KubeClient | LightClient]


@pytest.fixture(params=["official", "light"])
def client_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClientOf]:
    """Makes a client of an address, by a kubeconfig with or without a token."""
    with ExitStack() as opened:

        def made(url: str, *, with_token: bool = True) -> KubeClient | LightClient:
            file = tmp_path / "kubeconfig"
            file.write_text(a_kubeconfig(url, with_token=with_token))
            client: KubeClient | LightClient = (
                LightClient(load(str(file), None))
                if request.param == "light"
                else KubeClient.from_environment(str(file))
            )
            opened.callback(client.close)
            return client

        yield made


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"reason": "BadRequest"}, BadRequest),
        (401, {}, Unauthorized),
        (403, {"reason": "Forbidden"}, Forbidden),
        (404, {"reason": "NotFound"}, NotFound),
        (409, {"reason": "Conflict"}, Conflict),
        (409, {"reason": "AlreadyExists"}, AlreadyExists),
        (410, {"reason": "Expired"}, Gone),
        (422, {"reason": "Invalid"}, Invalid),
        (422, {"reason": "Invalid", "details": OTHER_UID}, Conflict),
        (429, {}, TooManyRequests),
        (418, {}, ApiError),
        (500, {}, ClusterUnavailable),
        (503, {}, ClusterUnavailable),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_refusal_becomes_the_error_of_its_kind_with_the_servers_words(
    client_of: ClientOf, api: SmallApi, status: int, body: dict[str, object], kind: type[ApiError]
) -> None:
    api.answers["GET", "/x"] = [(status, {"message": "because", **body})]
    with pytest.raises(ApiError) as caught:
        client_of(api.url).request("GET", "/x")
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.message == "because"
    assert caught.value.details == body.get("details", {})


def test_refusal_that_is_no_status_object_is_quoted(client_of: ClientOf, api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(502, b"<html>bad gateway \xff")]
    with pytest.raises(ClusterUnavailable, match="bad gateway"):
        client_of(api.url).request("GET", "/x")


def test_redirect_is_not_followed_with_our_token(client_of: ClientOf, api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(302, b"elsewhere")]
    with pytest.raises(ApiError, match="302"):
        client_of(api.url).request("GET", "/x")
    assert len(api.requests) == 1


def test_body_query_and_content_type_arrive(client_of: ClientOf, api: SmallApi) -> None:
    api.answers["PATCH", "/x"] = [(200, {"ok": True})]
    answer = client_of(api.url).request(
        "PATCH",
        "/x",
        query={"fieldManager": "a b"},
        body={"metadata": {"name": "ä"}},
        content_type=MERGE_PATCH,
    )
    assert json.loads(answer) == {"ok": True}
    _, _, query, body = api.requests[0]
    assert query == {"fieldManager": "a b"}
    assert json.loads(body) == {"metadata": {"name": "ä"}}
    assert api.headers[0]["Content-Type"] == MERGE_PATCH
    assert api.headers[0]["User-Agent"].startswith("nightcap/")
    assert api.headers[0]["Authorization"] == "Bearer the-token"


def test_server_that_is_not_there_is_unavailable(client_of: ClientOf, api: SmallApi) -> None:
    client = client_of(api.url)
    api.close()
    with pytest.raises(ClusterUnavailable, match="did not answer"):
        client.request("GET", "/x")
    with pytest.raises(ClusterUnavailable, match="did not answer"):
        client.download("/x")


def test_server_that_is_silent_is_not_waited_for(client_of: ClientOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = client_of(f"http://127.0.0.1:{server.getsockname()[1]}")
        client.read_seconds = 0.1
        with pytest.raises(ClusterUnavailable, match="did not answer"):
            client.request("GET", "/x")


def test_one_connection_serves_several_requests(client_of: ClientOf, api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(200, {}), (404, {"message": "no"}), (200, {"last": 1})]
    client = client_of(api.url)
    client.request("GET", "/x")
    with pytest.raises(NotFound):
        client.request("GET", "/x")
    assert json.loads(client.request("GET", "/x")) == {"last": 1}
    assert len({headers["X-Port"] for headers in api.headers}) == 1


def test_connection_that_the_server_closes_is_opened_again(
    client_of: ClientOf, api: SmallApi
) -> None:
    api.answers["POST", "/x"] = [(200, {}, {"Connection": "close"})]
    client = client_of(api.url)
    assert [client.request("POST", "/x", body={}) for _ in range(3)] == [b"{}"] * 3
    assert len({headers["X-Port"] for headers in api.headers}) == 3


def test_large_answer_comes_in_pieces_with_its_length(client_of: ClientOf, api: SmallApi) -> None:
    data = bytes(range(256)) * 1000
    api.answers["GET", "/big"] = [(200, data)]
    with client_of(api.url).download("/big", {"X-Asked": "yes"}) as download:
        pieces = list(download)
    assert (download.status, download.length) == (200, len(data))
    assert b"".join(pieces) == data
    assert len(pieces) > 1
    assert api.headers[-1]["X-Asked"] == "yes"


def test_refused_download_is_the_servers_error(client_of: ClientOf, api: SmallApi) -> None:
    api.answers["GET", "/big"] = [(403, b"plain words")]
    with pytest.raises(Forbidden, match="plain words"):
        client_of(api.url).download("/big")


def test_download_that_breaks_off_is_never_taken_for_whole(client_of: ClientOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

        thread = threading.Thread(target=answer)
        thread.start()
        client = client_of(f"http://127.0.0.1:{server.getsockname()[1]}")
        with client.download("/big") as download, pytest.raises(ClusterUnavailable):
            list(download)
        thread.join()


def test_bearer_token_is_the_kubeconfigs(client_of: ClientOf) -> None:
    for with_token, token in ((True, "the-token"), (False, None)):
        client = client_of("http://127.0.0.1:1", with_token=with_token)
        assert client.bearer_token() == token
