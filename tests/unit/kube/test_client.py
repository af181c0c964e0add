"""The client against a small real HTTP server, and its configuration from real files."""

import os
import stat
import warnings
from pathlib import Path

import msgspec
import pytest
import yaml

from nightcap.kube.client import MERGE_PATCH, KubeClient
from nightcap.kube.errors import (
    ClusterUnavailable,
    Forbidden,
)
from tests.unit.kube.small_api import SmallApi


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
