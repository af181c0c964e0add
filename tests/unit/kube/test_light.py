"""What kubeconfigs may hold that the light client has to leave alone, or to complain of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.light import LightClient
from nightcap.kube.quick import NotQuick, load
from tests.unit.kube.small_api import a_kubeconfig


def client_of(folder: Path, user: dict[str, Any], **cluster: Any) -> LightClient:
    config = json.loads(a_kubeconfig("https://127.0.0.1:1"))
    config["users"][0]["user"] = user
    config["clusters"][0]["cluster"] |= cluster
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    return LightClient(load(str(file), None))


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        pytest.param({"exec": {"command": "login"}}, {}, id="plugin"),
        pytest.param({"auth-provider": {"name": "oidc"}}, {}, id="provider"),
        pytest.param({"username": "jo", "password": "p"}, {}, id="password"),
        pytest.param({"token": "t", "as": "boss"}, {}, id="impersonation"),
        pytest.param({"token": "t"}, {"proxy-url": "http://proxy:3128"}, id="proxy"),
        pytest.param({"token": "t"}, {"tls-server-name": "api"}, id="server name"),
        pytest.param({"token": "t"}, {"server": "unix:///run/api"}, id="scheme"),
        pytest.param({"token": "t"}, {"of-the-future": 1}, id="unknown field"),
    ],
)
def test_what_it_does_not_know_it_leaves_to_the_official_client(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any]
) -> None:
    with pytest.raises(NotQuick):
        client_of(tmp_path, user, **cluster)


def test_proxy_of_the_environment_is_left_to_the_official_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    with pytest.raises(NotQuick):
        client_of(tmp_path, {"token": "t"})


@pytest.mark.parametrize(
    ("user", "words"),
    [
        pytest.param({"tokenFile": "no-such-token"}, "no-such-token", id="token"),
        pytest.param({"client-certificate": "no-such.crt", "client-key": "k"}, "no-such.crt",
                     id="certificate"),
        pytest.param({"client-certificate-data": "a", "client-key-data": "a"}, "base64",
                     id="base64"),
        pytest.param({"client-certificate-data": "YQ==", "client-key-data": "YQ=="}, "PEM",
                     id="pem"),
    ],
)  # fmt: skip
def test_login_that_cannot_be_read_is_told(
    tmp_path: Path, user: dict[str, Any], words: str
) -> None:
    client = client_of(tmp_path, user, **{"insecure-skip-tls-verify": True})
    with pytest.raises(ClusterUnavailable, match=words) as caught:
        client.request("GET", "/x")
    assert caught.value.reason == "NoLogin"


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    assert client_of(tmp_path, {"tokenFile": "token"}).bearer_token() == "of-the-file"
