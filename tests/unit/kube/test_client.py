"""The client against a small real HTTP server, and its configuration from real files."""

import os
import socket
import stat
import threading
import warnings
from pathlib import Path

import msgspec
import pytest
import yaml
from kubernetes.client import Configuration

from nightcap.kube.client import MERGE_PATCH, KubeClient
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
from tests.unit.kube.small_api import SmallApi, a_kubeconfig

OTHER_UID = {"causes": [{"field": "metadata.uid", "message": "field is immutable"}]}


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
    api: SmallApi, status: int, body: dict[str, object], kind: type[ApiError]
) -> None:
    api.answers["GET", "/x"] = [(status, {"message": "because", **body})]
    with pytest.raises(ApiError) as caught:
        api.client().request("GET", "/x")
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.message == "because"
    assert caught.value.details == body.get("details", {})


def test_refusal_that_is_no_status_object_is_quoted(api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(502, b"<html>bad gateway \xff")]
    with pytest.raises(ClusterUnavailable, match="bad gateway"):
        api.client().request("GET", "/x")


def test_redirect_is_not_followed_with_our_token(api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(302, b"elsewhere")]
    with pytest.raises(ApiError, match="302"):
        api.client().request("GET", "/x")
    assert len(api.requests) == 1


def test_server_that_is_not_there_is_unavailable(api: SmallApi) -> None:
    client = api.client()
    api.close()
    with pytest.raises(ClusterUnavailable, match="did not answer"):
        client.request("GET", "/x", timeout=(1, 1))
    with pytest.raises(ClusterUnavailable), client.stream_lines("/x") as stream:
        list(stream)


def test_body_query_and_content_type_arrive_as_given(api: SmallApi) -> None:
    api.answers["PATCH", "/x"] = [(200, {"ok": True})]
    answer = api.client().request(
        "PATCH",
        "/x",
        query={"fieldManager": "a b"},
        body={"metadata": {"name": "ä"}},
        content_type=MERGE_PATCH,
        headers={"X-Other": "1"},
    )
    assert msgspec.json.decode(answer) == {"ok": True}
    _, _, query, body = api.requests[0]
    assert query == {"fieldManager": "a b"}
    assert msgspec.json.decode(body) == {"metadata": {"name": "ä"}}
    assert api.headers[0]["Content-Type"] == MERGE_PATCH
    assert api.headers[0]["X-Other"] == "1"
    assert api.headers[0]["User-Agent"].startswith("nightcap/")
    assert "Authorization" not in api.headers[0]


def test_bytes_are_sent_unchanged(api: SmallApi) -> None:
    api.answers["POST", "/x"] = [(201, {})]
    api.client().request("POST", "/x", body=b'{"a" : 1}')
    assert api.requests[0][3] == b'{"a" : 1}'


def test_lines_come_one_by_one_whatever_the_chunks(api: SmallApi) -> None:
    api.answers["GET", "/log"] = [(200, b"one\n\ntwo\n" + b"x" * 200_000 + b"\nlast")]
    with api.client().stream_lines("/log") as stream:
        assert list(stream) == [b"one", b"two", b"x" * 200_000, b"last"]


def test_refused_watch_raises_before_it_is_read(api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(403, {"message": "no list for you"})]
    with pytest.raises(Forbidden, match="no list for you"):
        api.client().stream_lines("/x")


def test_after_a_fork_the_parents_connections_are_left_alone(api: SmallApi) -> None:
    api.answers["GET", "/x"] = [(200, {})]
    client = api.client()
    client.request("GET", "/x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        child = os.fork()
    if child == 0:
        try:
            client.request("GET", "/x")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    client.request("GET", "/x")
    assert len(api.requests) == 3
    ports = [int(headers["X-Port"]) for headers in api.headers]
    assert ports[0] == ports[2] != ports[1]


def _kubeconfig(path: Path, api: SmallApi, user: dict[str, object]) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": user}, {"name": "v", "user": {"token": "other"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "there", "context": {"cluster": "c", "user": "v"}},
        ],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_kubeconfig_names_server_token_and_context(
    api: SmallApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers["GET", "/x"] = [(200, {})]
    file = _kubeconfig(tmp_path / "config", api, {"token": "secret"})
    client = KubeClient.from_environment(kubeconfig=file)
    client.request("GET", "/x")
    KubeClient.from_environment(kubeconfig=file, context="there").request("GET", "/x")
    assert [headers["Authorization"] for headers in api.headers] == [
        "Bearer secret",
        "Bearer other",
    ]
    assert client.host == api.url


def test_kubeconfig_with_a_login_program_works(api: SmallApi, tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text(
        "#!/bin/sh\n"
        'echo \'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
        ' "status": {"token": "from-program"}}\'\n'
    )
    login.chmod(login.stat().st_mode | stat.S_IXUSR)
    api.answers["GET", "/x"] = [(200, {})]
    version = "client.authentication.k8s.io/v1"
    user = {"exec": {"apiVersion": version, "command": str(login), "interactiveMode": "Never"}}
    file = _kubeconfig(tmp_path / "config", api, user)
    KubeClient.from_environment(kubeconfig=file).request("GET", "/x")
    assert api.headers[0]["Authorization"] == "Bearer from-program"


def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnavailable, match="nowhere"):
        KubeClient.from_environment(kubeconfig=str(tmp_path / "nowhere"))


def test_large_answer_comes_in_pieces_with_its_length(api: SmallApi) -> None:
    data = bytes(range(256)) * 1000
    api.answers["GET", "/big"] = [(200, data)]
    with api.client().download("/big", {"X-Asked": "yes"}) as download:
        pieces = list(download)
    assert (download.status, download.length) == (200, len(data))
    assert b"".join(pieces) == data
    assert len(pieces) > 1
    assert api.headers[-1]["X-Asked"] == "yes"


def test_refused_download_is_the_servers_error(api: SmallApi) -> None:
    api.answers["GET", "/big"] = [(403, b"plain words")]
    with pytest.raises(Forbidden, match="plain words"):
        api.client().download("/big")


def test_download_that_breaks_off_is_never_taken_for_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

        thread = threading.Thread(target=answer)
        thread.start()
        client = KubeClient(Configuration(host=f"http://127.0.0.1:{server.getsockname()[1]}"))
        with client.download("/big") as download, pytest.raises(ClusterUnavailable):
            list(download)
        thread.join()


def test_bearer_token_is_the_kubeconfigs(tmp_path: Path) -> None:
    for with_token, token in ((True, "the-token"), (False, None)):
        file = tmp_path / "kubeconfig"
        file.write_text(a_kubeconfig("http://127.0.0.1:1", with_token=with_token))
        assert KubeClient.from_environment(str(file)).bearer_token() == token
