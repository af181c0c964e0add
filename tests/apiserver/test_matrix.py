"""Who may what: every kind of person and pod by every route, as a real API server has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from tests.apiserver.private import PrivateApi
from tests.apiserver.retrieving import SYSTEM, Retrieval, roles
from tests.apiserver.speaking import Answer, direct, proxy_rights, through_proxy
from tests.apiserver.tokens import signed_anew

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
        *proxy_rights(),
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
    with direct(world.retrieval, "collector") as collector:
        for name in (RUNNING, FINISHED, CALICOS):
            answer = collector.append(sidecar, uids[name], seq=1)
            assert answer.status == 204, answer
    with direct(world.retrieval) as files:
        listed = files.ask("GET", f"{V1}/{RUNNING}/files", tokens["admin"])
    [file] = json.loads(listed.body)["files"]
    return replace(world, file=file["file"])


def test_every_cell_of_the_files_table(api: PrivateApi, world: World) -> None:
    wrong, count = [], 0
    with direct(world.retrieval) as near, through_proxy(world.retrieval) as far:
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
    with direct(world.retrieval, "collector") as speaker:
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
    with direct(world.retrieval) as near, through_proxy(world.retrieval) as far:
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
