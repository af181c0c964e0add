"""Who may what: every kind of person and pod by every route, as a real API server has it."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nightcap.contract import keys
from nightcap.kube import paths
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import SYSTEM, Retrieval, roles
from tests.unit.retrieval.builders import a_pcap

HERE, ELSEWHERE = "matrix-here", "matrix-elsewhere"
RUNNING, FINISHED, CALICOS, ABSENT = "running", "finished", "calicos", "absent"

# The files program. What each column is about: a capture of nightcap.dev that runs, one that is
# finished, one of projectcalico.org that runs, and one that does not exist. `get` are the paths of
# /v1, `dl` and `del` Calico's, which name no group: there a name means what its asker may know of.
FILES_TABLE = """
                    get      get     dl       dl       dl      del      del       del      del
                    running  absent  running  calicos  absent  running  finished  calicos  absent
anonymous           401      401     401      401      401     401      401       401      401
garbage             401      401     401      401      401     401      401       401      401
sidecar-same-pod    401      401     401      401      401     401      401       401      401
sidecar-other-pod   401      401     401      401      401     401      401       401      401
sidecar-elsewhere   401      401     401      401      401     401      401       401      401
other-audience      401      401     401      401      401     401      401       401      401
expired             401      401     401      401      401     401      401       401      401
bound-to-deleted    401      401     401      401      401     401      401       401      401
nobody              403      403     403      403      403     403      403       403      403
capture-only        403      403     403      403      403     403      403       403      403
files-elsewhere     403      403     403      403      403     403      403       403      403
files-only          200      404     200      404      404     403      403       403      403
delete-only         403      403     403      403      403     403      200       404      404
calico-files        403      403     404      200      404     404      404       403      404
admin               200      404     200      200      404     403      200       403      404
"""

# The collector. `own` is a capture that selects the first pod of the namespace and not the second.
COLLECTOR_TABLE = """
                    append  look  append  look    reports
                    own     own   absent  absent
anonymous           401     401   401     401     401
garbage             401     401   401     401     401
sidecar-same-pod    204     204   410     410     401
sidecar-other-pod   403     403   410     410     401
sidecar-elsewhere   410     410   410     410     401
sidecar-unbound     403     403   403     403     401
sidecar-expired     401     401   401     401     401
sidecar-of-deleted  401     401   401     401     401
nobody              401     401   401     401     403
capture-only        401     401   401     401     403
files-only          401     401   401     401     403
admin               401     401   401     401     200
controller          401     401   401     401     200
"""

V1 = f"/v1/namespaces/{HERE}/packetcaptures"
GETS = (
    "files",
    "files/{file}",
    "files.zip",
    "merged.pcapng",
    "live.pcapng",
)
DOWNLOADS = ("/download/{ns}/{name}/files.zip", "/packet-capture/download/{ns}/{name}/files.zip")
DELETES = (
    "/files/{ns}/{name}",
    "/files/{ns}/{name}/files.zip",
    "/download/{ns}/{name}/files.zip",
    "/packet-capture/files/{ns}/{name}",
    "/packet-capture/files/{ns}/{name}/files.zip",
    "/packet-capture/download/{ns}/{name}/files.zip",
)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class World:
    """The programs, the tokens of all who speak to them, and what there is."""

    retrieval: Retrieval
    tokens: dict[str, str | None]
    uids: dict[str, str]
    file: str


def cells(table: str) -> Iterator[tuple[str, str, str, int]]:
    """(who, what, of which capture, expected status) of each cell."""
    first, second, *rows = table.strip("\n").splitlines()
    whats, names = first.split(), second.split()
    names += [""] * (len(whats) - len(names))
    for row in rows:
        who, *statuses = row.split()
        for what, name, status in zip(whats, names, statuses, strict=True):
            yield who, what, name, int(status)


@pytest.fixture(scope="module")
def world(api: PrivateApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    retrieval = Retrieval(api, tmp_path_factory.mktemp("retrieval"))
    try:
        yield make_world(api, retrieval)
    finally:
        retrieval.kill()


def make_world(api: PrivateApi, retrieval: Retrieval) -> World:
    for name in (HERE, ELSEWHERE):
        api.namespace(name)
    ours, calico = [keys.GROUP], [keys.CALICO_GROUP]
    everything = ["get", "list", "watch", "create", "update", "patch", "delete"]
    own, files = ["packetcaptures"], ["packetcaptures/files"]
    api.apply(
        *roles(
            HERE,
            {
                "nobody": [],
                "capture-only": [
                    {"apiGroups": ours + calico, "resources": own, "verbs": everything}
                ],
                "files-only": [{"apiGroups": ours, "resources": files, "verbs": ["get"]}],
                "delete-only": [{"apiGroups": ours, "resources": files, "verbs": ["delete"]}],
                "calico-files": [
                    {"apiGroups": calico, "resources": files, "verbs": ["get", "delete"]}
                ],
                "admin": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
            },
        ),
        *roles(
            ELSEWHERE,
            {"files-elsewhere": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]},
        ),
        *roles(
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
        ),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "matrix-admin"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "admin", "namespace": HERE}],
        },
    )
    wait_established(api)
    selector: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}
    uids = {
        RUNNING: retrieval.capture(HERE, RUNNING, selector),
        FINISHED: retrieval.capture(HERE, FINISHED, selector, phase="Finished"),
        CALICOS: retrieval.capture(
            HERE, CALICOS, {"selector": 'app == "web"'}, group=keys.CALICO_GROUP
        ),
        ABSENT: "00000000-0000-4000-8000-000000000000",
    }
    pod = retrieval.pod(HERE, "web-0", app="web")
    other = retrieval.pod(HERE, "db-0", app="db")
    stranger = retrieval.pod(ELSEWHERE, "web-0", app="web")
    going = retrieval.pod(HERE, "going", app="web")
    of_a_sidecar = retrieval.sidecar_token(going)
    api.client.request("DELETE", paths.pod(HERE, "going"), body={"gracePeriodSeconds": 0})
    secret = {"kind": "Secret", "metadata": {"name": "going"}}
    secret = json.loads(api.client.request("POST", paths.secrets(HERE), body=secret))
    of_a_person = retrieval.token(HERE, "admin", bound_to=secret | {"kind": "Secret"})
    api.client.request("DELETE", paths.secret(HERE, "going"))
    people = ("nobody", "capture-only", "files-only", "delete-only", "calico-files", "admin")
    sidecar = retrieval.sidecar_token(pod)
    tokens: dict[str, str | None] = {
        "anonymous": None,
        "garbage": "no-token-at-all",
        "sidecar-same-pod": sidecar,
        "sidecar-other-pod": retrieval.sidecar_token(other),
        "sidecar-elsewhere": retrieval.sidecar_token(stranger),
        "sidecar-unbound": retrieval.token(HERE, "admin", keys.TOKEN_AUDIENCE),
        "sidecar-expired": signed_anew(api, sidecar, -3600),
        "sidecar-of-deleted": of_a_sidecar,
        "other-audience": retrieval.token(HERE, "admin", "somebody-else"),
        "expired": signed_anew(api, retrieval.token(HERE, "admin"), -3600),
        "bound-to-deleted": of_a_person,
        "files-elsewhere": retrieval.token(ELSEWHERE, "files-elsewhere"),
        "controller": retrieval.token(SYSTEM, "nightcap-controller"),
        **{who: retrieval.token(HERE, who) for who in people},
    }
    retrieval.start("collector", "files")
    retrieval.serve_by_proxy()
    world = World(retrieval, tokens, uids, "")
    with direct(world, "collector") as collector:
        for name in (RUNNING, FINISHED, CALICOS):
            answer = collector.append(sidecar, uids[name], seq=1)
            assert answer.status == 204, answer
    with direct(world) as files:
        listed = files.ask("GET", f"{V1}/{RUNNING}/files", tokens["admin"])
    [file] = json.loads(listed.body)["files"]
    return replace(world, file=file["file"])


def wait_established(api: PrivateApi) -> None:
    done = api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
    assert done.returncode == 0, done.stderr


def signed_anew(api: PrivateApi, token: str, expires_in: float) -> str:
    """The same token with another end, signed by the API server's own key."""
    head, claims, _ = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    said["exp"] = int(time.time() + expires_in)
    said["iat"] = said["nbf"] = said["exp"] - 3600
    signed = f"{head}.{_base64(json.dumps(said).encode())}"
    key = load_pem_private_key((api.folder / "service-account.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


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
def direct(world: World, program: str = "files") -> Iterator[Speaker]:
    with closing(world.retrieval.connect(program)) as connection:
        yield Speaker(connection)


@contextmanager
def through_proxy(
    api: PrivateApi,
    world: World,
    passer_on: str = "",
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Speaker]:
    """As `kubectl nightcap` does it: two tokens, of which the API server keeps one.

    In place of that one it takes the client certificate of a person who has one.
    """
    context = ssl.create_default_context(cafile=str(api.folder / "ca.crt"))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, context=context, timeout=20)
    prefix = paths.service_proxy(SYSTEM, "https:nightcap-retrieval:443", "")
    with closing(connection):
        if certificate is None:
            passer_on = passer_on or world.retrieval.token(SYSTEM, "passer-on")
        yield Speaker(connection, prefix, passer_on, is_proxy=True)


def test_every_cell_of_the_files_table(api: PrivateApi, world: World) -> None:
    wrong, count = [], 0
    with direct(world) as near, through_proxy(api, world) as far:
        for how, speaker in (("direct", near), ("service proxy", far)):
            for who, what, name, expected in cells(FILES_TABLE):
                for method, path in requests(what, name, world.file):
                    answer = speaker.ask(method, path, world.tokens[who])
                    count += 1
                    is_ours = b'"kind":"Status"' not in answer.body
                    if answer.status != expected or not is_ours:
                        wrong.append((how, who, method, path, answer, expected))
    assert not wrong, wrong
    assert count > 1200


def requests(what: str, name: str, file: str) -> Iterator[tuple[str, str]]:
    forms, method = {
        "get": (
            tuple(f"/v1/namespaces/{{ns}}/packetcaptures/{{name}}/{get}" for get in GETS),
            "GET",
        ),
        "dl": (DOWNLOADS, "GET"),
        "del": (DELETES, "DELETE"),
    }[what]
    for form in forms:
        path = form.format(ns=HERE, name=name, file=file)
        yield method, path
        if method == "GET" and not path.endswith("live.pcapng"):
            yield "HEAD", path


def test_every_cell_of_the_collectors_table(world: World) -> None:
    wrong = []
    with direct(world, "collector") as speaker:
        for who, what, name, expected in cells(COLLECTOR_TABLE):
            token = world.tokens[who]
            uid = world.uids[ABSENT if name == ABSENT else RUNNING]
            if what == "append":
                answer = speaker.append(token, uid, seq=7)
            elif what == "look":
                answer = speaker.ask("HEAD", f"/v1/captures/{uid}/eth0/7", token)
            else:
                answer = speaker.ask("GET", "/v1/reports", token)
            if answer.status != expected:
                wrong.append((who, what, name, answer, expected))
    assert not wrong, wrong


def test_whether_a_capture_exists_is_in_no_answer_to_those_without_rights(
    api: PrivateApi, world: World
) -> None:
    """Not in status, text, length or headers, of whatever group the capture is."""
    with direct(world) as near, through_proxy(api, world) as far:
        for who, what, name, expected in cells(FILES_TABLE):
            if expected not in (401, 403) or name == ABSENT or (who, what) in TOLD:
                continue
            absent = "".join(reversed(name))
            pairs = list(
                zip(
                    requests(what, name, world.file),
                    requests(what, absent, world.file),
                    strict=True,
                )
            )
            # The proxy adds nothing that differs from person to person.
            for speaker in (near, far) if who == "nobody" else (near,):
                for (method, path), (_, path_of_absent) in pairs:
                    there = speaker.ask(method, path, world.tokens[who])
                    gone = speaker.ask(method, path_of_absent, world.tokens[who])
                    assert there.status == expected
                    assert neutral(there, name) == neutral(gone, absent), (who, path)


TOLD = {("delete-only", "del"), ("calico-files", "del"), ("admin", "del")}
"""These have the right, and are told that the capture still runs."""


def neutral(answer: Answer, name: str) -> Answer:
    headers = {k: v for k, v in answer.headers.items() if k not in ("audit-id", "date")}
    return Answer(answer.status, answer.body.replace(name.encode(), b"NAME"), headers)


def test_a_token_signed_anew_within_its_time_is_good(api: PrivateApi, world: World) -> None:
    """So it is for their time, and not for our signature, that the expired ones are refused.

    The API server grants a minute.
    """
    token = world.tokens["admin"]
    assert token is not None
    with direct(world) as speaker:
        for expires_in, expected in ((3000, 200), (-90, 401)):
            renewed = signed_anew(api, token, expires_in)
            assert speaker.ask("GET", f"{V1}/{RUNNING}/files", renewed).status == expected


def test_a_person_with_a_certificate_comes_by_a_short_lived_token(
    api: PrivateApi, world: World
) -> None:
    """Retrieval knows tokens alone: the certificate is for the API server, also on the way here."""
    certificate = api.certificate_of("carol")
    as_carol = api.kubeconfig_of("carol", certificate)
    api.apply(*rights_of_carol())

    def create_token(*arguments: str, account: str = "files-only") -> str:
        command = ("-n", HERE, "create", "token", account, "--duration=10m", *arguments)
        done = api.kubectl(*command, kubeconfig=as_carol)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    bound_to = {"kind": "Secret", "metadata": {"name": "carols"}}
    api.client.request("POST", paths.secrets(HERE), body=bound_to)
    good = create_token()
    refused = {
        "none at all": None,
        "expired": signed_anew(api, good, -600),
        "of another audience": create_token("--audience=somebody-else"),
        "bound to what was deleted": create_token(
            "--bound-object-kind=Secret", "--bound-object-name=carols"
        ),
    }
    api.client.request("DELETE", paths.secret(HERE, "carols"))
    path = f"{V1}/{RUNNING}/files"
    with direct(world) as near, through_proxy(api, world, certificate=certificate) as far:
        for speaker in (near, far):
            assert speaker.ask("GET", path, good).status == 200
            for why, token in refused.items():
                answer = speaker.ask("GET", path, token)
                assert (answer.status, b'"kind"' in answer.body) == (401, False), why
    # Of whom she may be is for the API server to say.
    done = api.kubectl("-n", HERE, "create", "token", "admin", kubeconfig=as_carol)
    assert "forbidden" in done.stderr


def rights_of_carol() -> Iterator[dict[str, Any]]:
    token = {"resources": ["serviceaccounts/token"], "verbs": ["create"]}
    proxy = {"resources": ["services/proxy"], "verbs": ["get"]}
    for namespace, rule in ((HERE, token | {"resourceNames": ["files-only"]}), (SYSTEM, proxy)):
        _account, role, binding = roles(namespace, {"carol": [{"apiGroups": [""], **rule}]})
        yield role
        group = "rbac.authorization.k8s.io"
        yield binding | {"subjects": [{"kind": "User", "name": "carol", "apiGroup": group}]}


def test_through_the_proxy_the_api_servers_right_comes_first(api: PrivateApi, world: World) -> None:
    token = world.tokens["files-only"]
    assert token is not None
    with through_proxy(api, world, passer_on=token) as speaker:
        answer = speaker.ask("GET", f"{V1}/{RUNNING}/files", token)
    assert answer.status == 403
    assert json.loads(answer.body)["kind"] == "Status"
