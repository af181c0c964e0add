"""Whose tokens are good where, as a real API server has it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import SYSTEM, Retrieval, roles
from tests.apiserver.speaking import Speaker, direct, proxy_rights, through_proxy
from tests.apiserver.tokens import signed_anew

NAMESPACE = "tokens"
LIST = f"/v1/namespaces/{NAMESPACE}/packetcaptures/any/files"
"""A list of files that is there, and empty."""


@pytest.fixture(scope="module")
def retrieval(api: PrivateApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retrieval]:
    made = Retrieval(api, tmp_path_factory.mktemp("retrieval"))
    try:
        api.namespace(NAMESPACE)
        files = {"resources": ["packetcaptures/files"], "verbs": ["get"]}
        rules = {name: [{"apiGroups": [keys.GROUP], **files}] for name in ("admin", "files-only")}
        api.apply(*roles(NAMESPACE, rules), *proxy_rights())
        made.capture(NAMESPACE, "any", {})
        made.start("files")
        made.serve_by_proxy()
        yield made
    finally:
        made.kill()


def test_a_sidecars_token_is_nobodys_at_the_api_server(
    api: PrivateApi, retrieval: Retrieval
) -> None:
    """Whoever takes it can ship as that pod, and nothing else, whatever its account may."""
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    api.apply(*roles(NAMESPACE, {"default": [everything]}))
    pod = retrieval.pod(NAMESPACE, "web-0")
    context = ssl.create_default_context(cafile=str(api.folder / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, context=context, timeout=20)
    with closing(connection):
        speaker = Speaker(connection)
        for audience, expected in ((keys.TOKEN_AUDIENCE, 401), ("", 200)):
            token = retrieval.token(NAMESPACE, "default", audience, pod)
            assert speaker.ask("GET", paths.pods(NAMESPACE), token).status == expected


def test_a_token_signed_anew_within_its_time_is_good(api: PrivateApi, retrieval: Retrieval) -> None:
    """So it is for their time, and not for our signature, that the expired ones are refused.

    The API server grants a minute.
    """
    token = retrieval.token(NAMESPACE, "admin")
    with direct(retrieval) as speaker:
        for expires_in, expected in ((3000, 200), (-90, 401)):
            renewed = signed_anew(api, token, expires_in)
            assert speaker.ask("GET", LIST, renewed).status == expected


def test_a_person_with_a_certificate_comes_by_a_short_lived_token(
    api: PrivateApi, retrieval: Retrieval
) -> None:
    """Retrieval knows tokens alone: the certificate is for the API server, also on the way here."""
    certificate = api.certificate_of("carol")
    as_carol = api.kubeconfig_of("carol", certificate)
    api.apply(*rights_of_carol())

    def create_token(*arguments: str, account: str = "files-only") -> str:
        command = ("-n", NAMESPACE, "create", "token", account, "--duration=10m", *arguments)
        done = api.kubectl(*command, kubeconfig=as_carol)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    bound_to = {"kind": "Secret", "metadata": {"name": "carols"}}
    api.client.request("POST", paths.secrets(NAMESPACE), body=bound_to)
    good = create_token()
    refused = {
        "none at all": None,
        "expired": signed_anew(api, good, -600),
        "of another audience": create_token("--audience=somebody-else"),
        "bound to what was deleted": create_token(
            "--bound-object-kind=Secret", "--bound-object-name=carols"
        ),
    }
    api.client.request("DELETE", paths.secret(NAMESPACE, "carols"))
    with direct(retrieval) as near, through_proxy(retrieval, certificate=certificate) as far:
        for speaker in (near, far):
            assert speaker.ask("GET", LIST, good).status == 200
            for why, token in refused.items():
                answer = speaker.ask("GET", LIST, token)
                assert (answer.status, b'"kind"' in answer.body) == (401, False), why
    # Of whom she may be is for the API server to say.
    done = api.kubectl("-n", NAMESPACE, "create", "token", "admin", kubeconfig=as_carol)
    assert "forbidden" in done.stderr


def rights_of_carol() -> Iterator[dict[str, Any]]:
    token = {"resources": ["serviceaccounts/token"], "verbs": ["create"]}
    proxy = {"resources": ["services/proxy"], "verbs": ["get"]}
    for namespace, rule in (
        (NAMESPACE, token | {"resourceNames": ["files-only"]}),
        (SYSTEM, proxy),
    ):
        _account, role, binding = roles(namespace, {"carol": [{"apiGroups": [""], **rule}]})
        yield role
        group = "rbac.authorization.k8s.io"
        yield binding | {"subjects": [{"kind": "User", "name": "carol", "apiGroup": group}]}


def test_through_the_proxy_the_api_servers_right_comes_first(
    api: PrivateApi, retrieval: Retrieval
) -> None:
    token = retrieval.token(NAMESPACE, "files-only")
    with through_proxy(retrieval, passer_on=token) as speaker:
        answer = speaker.ask("GET", LIST, token)
    assert answer.status == 403
    assert json.loads(answer.body)["kind"] == "Status"
