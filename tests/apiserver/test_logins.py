"""Whoever logs in to the cluster, however they do it, fetches files with their own rights.

A real API server with a real OpenID Connect issuer, retrieval behind the API server's service
proxy, and `kubectl nightcap` with the kubeconfigs that such people have.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from demo.kubectl import wait_for
from nightcap.cli.program import run
from nightcap.kube import paths, quick
from nightcap.kube.errors import ClusterUnavailable, Forbidden
from nightcap.kube.light import LightClient
from tests.apiserver.issuer import AUDIENCE, Issuer
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import SYSTEM, Retrieval, roles
from tests.apiserver.speaking import Speaker
from tests.cluster.certificates import Authority
from tests.unit.cli.conftest import Ran

HERE, NAME = "logins", "dns"
RBAC = "rbac.authorization.k8s.io"
PLUGIN_VERSION = "client.authentication.k8s.io/v1"


@dataclass(frozen=True)
class World:
    api: PrivateApi
    issuer: Issuer
    retrieval: Retrieval


@pytest.fixture(scope="module")
def world(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("logins")
    authority = Authority(folder / "issuer", "issuer-ca")
    issuer = Issuer(authority)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        api = PrivateApi(
            folder,
            f"--oidc-issuer-url={issuer.url}",
            f"--oidc-client-id={AUDIENCE}",
            f"--oidc-ca-file={authority.file}",
            "--oidc-username-prefix=oidc:",
            "--oidc-groups-claim=groups",
            "--oidc-groups-prefix=oidc:",
        )
    retrieval = Retrieval(api, folder / "retrieval")
    try:
        _fill(api, retrieval)
        yield World(api, issuer, retrieval)
    finally:
        retrieval.kill()
        api.close()
        issuer.close()


def _fill(api: PrivateApi, retrieval: Retrieval) -> None:
    """A capture with one file, and rights for some."""
    api.namespace(HERE)
    may_not: dict[str, Any] = {"analyst": [], "nobody": []}
    api.apply(
        *roles(HERE, may_not),
        _binding(HERE, "nightcap-files", "ClusterRole", "oidc:ann", "cert-reader"),
        _binding(HERE, "nightcap-files", "ClusterRole", group="oidc:network"),
        _binding(HERE, "nightcap-files", "ClusterRole", account="analyst"),
        _binding(SYSTEM, "nightcap-reach", "Role", "oidc:ann", "oidc:bob", "borrower", "stranger"),
        _binding(SYSTEM, "nightcap-reach", "Role", group="oidc:network"),
        _binding(SYSTEM, "nightcap-reach", "Role", group=f"system:serviceaccounts:{HERE}"),
        *_borrowing(),
    )
    uid = retrieval.capture(HERE, NAME, {"selector": {"matchLabels": {"app": "web"}}})
    pod = retrieval.pod(HERE, "web-0", app="web")
    retrieval.start("collector", "files")
    retrieval.serve_by_proxy()
    with closing(retrieval.connect("collector")) as connection:
        answer = Speaker(connection).append(retrieval.sidecar_token(pod), uid, seq=1)
    assert answer.status == 204, answer


def _binding(
    namespace: str, role: str, kind: str, *users: str, group: str = "", account: str = ""
) -> dict[str, Any]:
    subjects = [{"apiGroup": RBAC, "kind": "User", "name": user} for user in users]
    if group:
        subjects = [{"apiGroup": RBAC, "kind": "Group", "name": group}]
    if account:
        subjects = [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    name = f"{role}-{subjects[0]['name']}".replace(":", "-")
    return {
        "apiVersion": f"{RBAC}/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role}, "subjects": subjects,
    }  # fmt: skip


def _borrowing() -> list[dict[str, Any]]:
    """What lets somebody with a certificate find an account of the namespace and ask as it."""
    rules = [
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    ]
    reviews = [
        {
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["subjectaccessreviews"],
            "verbs": ["create"],
        }
    ]
    subjects = [{"apiGroup": RBAC, "kind": "User", "name": "borrower"}]
    return [
        {
            "apiVersion": f"{RBAC}/v1", "kind": "Role", "rules": rules,
            "metadata": {"name": "borrow", "namespace": HERE},
        },
        _binding(HERE, "borrow", "Role", "borrower"),
        {
            "apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "rules": reviews,
            "metadata": {"name": "review"},
        },
        {
            "apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "subjects": subjects,
            "metadata": {"name": "review"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "review"},
        },
    ]  # fmt: skip


Asking = Callable[..., Ran]


@pytest.fixture
def ask(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Asking:
    """Run `kubectl nightcap` with a kubeconfig whose user logs in like this."""

    def asked(user: dict[str, Any], *arguments: str) -> Ran:
        config = json.loads(world.api.kubeconfig.read_text())
        config["users"][0]["user"] = user
        config["contexts"][0]["context"]["namespace"] = HERE
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(config))
        capfd.readouterr()
        code = run(["--kubeconfig", str(file), *arguments])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return asked


def a_plugin(folder: Path, status: dict[str, str], fails: str = "") -> dict[str, Any]:
    """The `exec` of a kubeconfig, with a program of its own that prints this credential."""
    answer = {"apiVersion": PLUGIN_VERSION, "kind": "ExecCredential", "status": status}
    (folder / "answer.json").write_text(json.dumps(answer))
    program = folder / "login-plugin"
    program.write_text(
        "#!/bin/sh\n"
        f'test -n "$KUBERNETES_EXEC_INFO" && echo asked >> {folder}/asked\n'
        + (f"echo '{fails}' >&2; exit 3\n" if fails else f"cat {folder}/answer.json\n")
    )
    program.chmod(0o755)
    return {
        "exec": {
            "apiVersion": PLUGIN_VERSION, "command": str(program), "args": ["login"],
            "interactiveMode": "Never",
        }
    }  # fmt: skip


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.pcap"))


def test_exec_plugin_that_brings_a_token(world: World, ask: Asking, tmp_path: Path) -> None:
    user = a_plugin(tmp_path, {"token": world.retrieval.token(HERE, "analyst")})
    got = ask(user, "get", NAME, "-d", str(tmp_path / "got"))
    assert got.code == 0, got.err
    assert len(files_in(tmp_path / "got")) == 1
    assert (tmp_path / "asked").read_text() == "asked\n"  # once, as people wait for it
    listed = ask(user, "list", "-o", "name")
    assert listed.out == "packetcapture.nightcap.dev/dns\n", listed.err


def test_exec_plugin_without_the_right_is_refused(
    world: World, ask: Asking, tmp_path: Path
) -> None:
    user = a_plugin(tmp_path, {"token": world.retrieval.token(HERE, "nobody")})
    refused = ask(user, "get", NAME, "-d", str(tmp_path / "got"))
    assert refused.code == 1
    assert f"ask for the cluster role nightcap-files in namespace {HERE}" in refused.err


def test_exec_plugin_that_fails_is_told_in_its_own_words(ask: Asking, tmp_path: Path) -> None:
    said = ask(a_plugin(tmp_path, {}, fails="your session is over: log in"), "get", NAME)
    assert said.code == 1
    assert "login program failed" in said.err
    assert "your session is over: log in" in said.err
    assert "try `kubectl version`" in said.err


def wait_for_the_issuer(world: World, ask: Asking) -> None:
    """The API server reads the issuer's keys after it is ready."""
    user = {"token": world.issuer.token("ann")}
    wait_for("the issuer's keys", lambda: ask(user, "list").code == 0, 30)


def test_oidc_user_fetches_with_rights_of_their_own(
    world: World, ask: Asking, tmp_path: Path
) -> None:
    wait_for_the_issuer(world, ask)
    ann = a_plugin(tmp_path, {"token": world.issuer.token("ann")})
    got = ask(ann, "get", NAME, "-d", str(tmp_path / "ann"))
    assert got.code == 0, got.err
    assert len(files_in(tmp_path / "ann")) == 1
    # The audit names the person, and no service account.
    audit = world.retrieval.output("files")
    wait_for("the audit", lambda: '"oidc:ann"' in audit.read_text(), 10)
    by_group = {"token": world.issuer.token("eve", "network")}
    assert ask(by_group, "get", NAME, "-d", str(tmp_path / "eve")).code == 0
    assert len(files_in(tmp_path / "eve")) == 1


def test_oidc_user_without_the_right_is_refused(world: World, ask: Asking, tmp_path: Path) -> None:
    wait_for_the_issuer(world, ask)
    bob = {"token": world.issuer.token("bob", "others")}
    refused = ask(bob, "get", NAME, "-d", str(tmp_path / "bob"))
    assert refused.code == 1
    assert "oidc:bob" in refused.err
    assert f"ask for the cluster role nightcap-files in namespace {HERE}" in refused.err
    # Without the way to retrieval the role for that is what is asked for.
    nobody = ask({"token": world.issuer.token("zoe")}, "get", NAME)
    assert "ask for the role nightcap-reach" in nobody.err
    expired = ask({"token": world.issuer.token("ann", lives_seconds=-60)}, "get", NAME)
    assert expired.code == 1
    assert "log in" in expired.err
    assert not (tmp_path / "bob").exists()


def a_certificate(world: World, user: str) -> dict[str, Any]:
    certificate, key = world.api.certificate_of(user)
    return {"client-certificate": str(certificate), "client-key": str(key)}


def test_certificate_borrows_an_account_by_its_own_rights(
    world: World, ask: Asking, tmp_path: Path
) -> None:
    got = ask(a_certificate(world, "borrower"), "get", NAME, "-d", str(tmp_path / "got"))
    assert got.code == 0, got.err
    assert "asking as service account analyst" in got.err
    assert len(files_in(tmp_path / "got")) == 1


def test_certificate_without_rights_is_told_what_to_ask_for(world: World, ask: Asking) -> None:
    user = a_certificate(world, "stranger")
    said = ask(user, "get", NAME)
    assert said.code == 1
    assert "--as-service-account NAME" in said.err
    assert f"kubectl -n {HERE} create rolebinding analyst-files" in said.err
    named = ask(user, "get", NAME, "--as-service-account", "analyst")
    assert named.code == 1
    assert "ask for the right to create serviceaccounts/token of analyst" in named.err


@pytest.mark.parametrize("login", ["token", "certificate"])
def test_light_client_speaks_tls_as_who_the_kubeconfig_says(
    world: World, tmp_path: Path, login: str
) -> None:
    token = {"token": world.retrieval.token(HERE, "analyst")}
    user = token if login == "token" else a_certificate(world, "borrower")
    config = json.loads(world.api.kubeconfig.read_text())
    config["users"][0]["user"] = user
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    cluster = quick.load(str(file), None)
    client = LightClient(cluster)
    # The one may list accounts, the other captures; what neither may is refused.
    allowed = paths.packetcaptures(HERE) if login == "token" else paths.service_accounts(HERE)
    found = json.loads(client.request("GET", allowed, query={"limit": "5"}))
    names = {item["metadata"]["name"] for item in found["items"]}
    assert names & {NAME, "analyst"}
    with pytest.raises(Forbidden, match="cannot list resource"):
        client.request("GET", paths.secrets(HERE))
    client.close()
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"server": "https://127.0.0.1:1"}, "refused"),
        # Not the authority that has signed it.
        ({"certificate-authority-data": other_root(tmp_path)}, "CERTIFICATE_VERIFY_FAILED"),
    )
    for change, words in changes:
        other = LightClient(replace(cluster, cluster={**cluster.cluster, **change}))
        with pytest.raises(ClusterUnavailable, match=words):
            other.request("GET", allowed)


def other_root(folder: Path) -> str:
    """The certificate of an authority that nobody here trusts, as kubeconfigs have it."""
    stranger = Authority(folder / "stranger", "stranger-ca")
    return base64.b64encode(stranger.file.read_bytes()).decode()


def test_exec_plugin_that_brings_a_certificate_is_one(
    world: World, ask: Asking, tmp_path: Path
) -> None:
    files = a_certificate(world, "borrower")
    status = {
        "clientCertificateData": Path(files["client-certificate"]).read_text(),
        "clientKeyData": Path(files["client-key"]).read_text(),
    }
    got = ask(a_plugin(tmp_path, status), "get", NAME, "-d", str(tmp_path / "got"))
    assert got.code == 0, got.err
    assert "asking as service account analyst" in got.err
