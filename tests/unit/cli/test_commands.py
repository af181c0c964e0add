"""The commands against a small real HTTP server that answers like an API server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightcap.kube import paths
from tests.unit.cli.conftest import Run
from tests.unit.kube.small_api import SmallApi

CAPTURES = paths.packetcaptures("shop")
DNS = paths.packetcapture("shop", "dns")


def a_status(status: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"kind": "Status", "reason": reason, "message": message, "code": status}


def sent(api: SmallApi, method: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The last request of a method: path, query, body."""
    found = [(p, q, b) for m, p, q, b in api.requests if m == method][-1]
    return found[0], found[1], json.loads(found[2])


def test_start_takes_a_deployments_own_selector(api: SmallApi, nightcap: Run) -> None:
    selector = {"matchLabels": {"app": "web"}}
    api.put(paths.deployment("shop", "web"), spec={"selector": selector})
    created = {"metadata": {"name": "web-x7k2p", "namespace": "shop"}}
    api.answers["POST", CAPTURES] = [(201, created)]
    ran = nightcap(
        "start", "deployment/web", "-f", "udp port 53", "--duration", "30m",
        "--snap-length", "96", "-i", "eth0",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out == "packetcapture.nightcap.dev/web-x7k2p created\n"
    assert "kubectl nightcap status web-x7k2p -n shop" in ran.err
    path, query, body = sent(api, "POST")
    assert (path, query) == (CAPTURES, {})
    assert body == {
        "apiVersion": "nightcap.dev/v1alpha1",
        "kind": "PacketCapture",
        "metadata": {"generateName": "web-", "namespace": "shop"},
        "spec": {
            "selector": selector,
            "filter": "udp port 53",
            "duration": "30m",
            "snapLength": 96,
            "interfaces": ["eth0"],
        },
    }


def test_start_says_when_the_namespace_is_not_enabled(api: SmallApi, nightcap: Run) -> None:
    api.put(paths.namespace("shop"))
    api.answers["POST", CAPTURES] = [(201, {"metadata": {"name": "all"}})]
    assert "First: kubectl nightcap enable shop" in nightcap("start", "--all").err
    api.put(paths.namespace("shop"), metadata={"labels": {"nightcap.dev/inject": "enabled"}})
    assert "enable" not in nightcap("start", "--all").err


def test_dry_runs_write_nothing(api: SmallApi, nightcap: Run) -> None:
    ran = nightcap("start", "pod/a", "--name", "x", "--dry-run", "-o", "yaml")
    assert yaml.safe_load(ran.out)["spec"] == {"podNames": ["a"]}
    assert api.requests == []
    api.answers["POST", CAPTURES] = [(201, {"metadata": {"name": "x"}})]
    ran = nightcap("start", "pod/a", "--name", "x", "--dry-run=server")
    assert ran.out == "packetcapture.nightcap.dev/x created (server dry run)\n"
    assert sent(api, "POST")[1] == {"dryRun": "All"}
    api.put(DNS, metadata={"uid": "u"})
    assert nightcap("rm", "dns", "--dry-run").out.endswith("(dry run)\n")
    assert nightcap("stop", "dns", "--dry-run").out.endswith("stopped (dry run); its files stay\n")
    assert [method for method, *_ in api.requests if method in ("DELETE", "PATCH")] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", "--all", "--duration", "5x"], "'5x': write a positive number with a unit"),
        (["start", "--all", "--snap-length", "0"], "snapLength: 0 must be from 1 to 262144"),
        (["start", "--all", "-i", "a/b"], "'a/b' is no name of a network interface"),
        (["start", "deployment/nix"], "deployment 'nix' does not exist in namespace shop"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(
    api: SmallApi, nightcap: Run, arguments: list[str], words: str
) -> None:
    api.answers["GET", paths.deployment("shop", "nix")] = [
        a_status(404, "NotFound", 'deployments.apps "nix" not found')
    ]
    ran = nightcap(*arguments)
    assert ran.code == 1
    assert words in ran.err
    assert ran.out == ""
    assert [method for method, *_ in api.requests if method == "POST"] == []


@pytest.mark.parametrize("arguments", [["start"], ["nix"], ["list", "-o", "html"], ["rm"]])
def test_asking_in_a_wrong_way_is_exit_code_2(nightcap: Run, arguments: list[str]) -> None:
    ran = nightcap(*arguments)
    assert ran.code == 2
    assert "Usage: kubectl nightcap" in ran.err


def test_stop_suspends(api: SmallApi, nightcap: Run) -> None:
    api.answers["PATCH", DNS] = [(200, {"metadata": {"name": "dns"}})]
    ran = nightcap("stop", "dns", "-o", "name")
    assert ran.out == "packetcapture.nightcap.dev/dns\n"
    assert sent(api, "PATCH") == (DNS, {}, {"spec": {"suspend": True}})


def test_rm_asks_and_deletes_what_it_has_shown(api: SmallApi, nightcap: Run) -> None:
    api.put(DNS, metadata={"uid": "u-1"}, status={"packets": 3, "size": 10})
    refused = nightcap("rm", "dns")
    assert refused.code == 1
    assert "deleting a capture deletes its files" in refused.err
    api.answers["DELETE", DNS] = [(200, {})]
    done = nightcap("rm", "dns", "-y")
    assert (done.code, done.out) == (0, "packetcapture.nightcap.dev/dns deleted, with its files\n")
    assert sent(api, "DELETE")[2]["preconditions"] == {"uid": "u-1"}


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [(b"n\n", 1, "was not deleted"), (b"y\n", 0, "with its files\r\n"), (None, 130, "interrupted")],
    ids=["no", "yes", "Ctrl-C"],
)
def test_rm_asks_on_a_terminal(
    api: SmallApi, kubeconfig: Path, typed: bytes | None, code: int, words: str
) -> None:
    api.put(DNS, metadata={"uid": "u-1"}, status={"packets": 3, "size": 2048})
    api.answers["DELETE", DNS] = [(200, {})]
    terminal, theirs = pty.openpty()
    asked = subprocess.Popen(
        [sys.executable, "-m", "nightcap.cli", "rm", "dns"],
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while b"? [y/N]" not in said:
        said += os.read(terminal, 1000)
    assert b"Delete dns with its files (3 packets, 2.0 KiB)?" in said
    if typed is None:
        # Not before it reads: Python would look at the signal only after the next key.
        while Path(f"/proc/{asked.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
            time.sleep(0.01)
        asked.send_signal(signal.SIGINT)
    else:
        os.write(terminal, typed)
    with contextlib.suppress(OSError):  # how a terminal says that nobody holds it any more
        while more := os.read(terminal, 1000):
            said += more
    assert asked.wait() == code
    os.close(terminal)
    assert words in said.decode()
    deleted = [method for method, *_ in api.requests if method == "DELETE"]
    assert bool(deleted) == (code == 0)


def test_list_pages_and_speaks_every_format(api: SmallApi, nightcap: Run) -> None:
    for name in ("a", "b"):
        api.put(paths.packetcapture("shop", name), status={"phase": "Capturing", "packets": 1})
    table = nightcap("list").out.splitlines()
    assert table[0].split()[:3] == ["NAME", "PHASE", "CAPTURING"]
    assert [line.split()[0] for line in table[1:]] == ["a", "b"]
    assert nightcap("list", "-o", "name").out.split() == [
        "packetcapture.nightcap.dev/a", "packetcapture.nightcap.dev/b",
    ]  # fmt: skip
    found = json.loads(nightcap("list", "-o", "json").out)
    assert [item["metadata"]["name"] for item in found["items"]] == ["a", "b"]
    assert yaml.safe_load(nightcap("list", "-o", "yaml").out) == found
    assert "every packet" in nightcap("list", "-o", "wide").out
    nothing = nightcap("list", "-n", "empty")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no captures in namespace empty\n")


def test_namespace_is_the_contexts_unless_it_is_named(api: SmallApi, nightcap: Run) -> None:
    asked = []
    for arguments in (
        ["list"],
        ["--context", "bare", "list"],
        ["list", "-n", "other"],
        ["-n", "x", "list"],
    ):
        nightcap(*arguments)
        asked.append(api.requests[-1][1])
    assert asked == [paths.packetcaptures(n) for n in ("shop", "default", "other", "x")]


def test_status_explains_without_colours_in_a_pipe(api: SmallApi, nightcap: Run) -> None:
    api.put(DNS, metadata={"namespace": "shop"}, spec={"filter": "udp port 53"})
    ran = nightcap("status", "dns")
    assert "fault  the controller has not looked at it yet" in ran.out
    assert "       -> ask again" in ran.out
    assert "\x1b" not in ran.out
    assert json.loads(nightcap("status", "dns", "-o", "json").out)["spec"]["filter"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            a_status(404, "NotFound", "the server could not find the requested resource"),
            "Nightcap is not installed",
            id="no crd",
        ),
        pytest.param(
            # What a real API server says of a group that nobody has installed.
            (404, b"404 page not found\n"),
            "Nightcap is not installed",
            id="no group",
        ),
        pytest.param(
            a_status(404, "NotFound", 'packetcaptures.nightcap.dev "dns" not found'),
            "kubectl nightcap list -A",
            id="no capture",
        ),
        pytest.param(a_status(403, "Forbidden", "no"), "nightcap-capture", id="forbidden"),
        pytest.param(a_status(401, "Unauthorized", "no"), "log in", id="unauthorized"),
        pytest.param(a_status(409, "AlreadyExists", "dns exists"), "--name", id="name taken"),
        pytest.param(a_status(422, "Invalid", "the rule says no"), "the rule says no", id="rule"),
    ],
)
def test_errors_say_what_to_do(
    api: SmallApi, nightcap: Run, answer: tuple[int, Any], words: str
) -> None:
    api.answers["GET", DNS] = [answer]
    ran = nightcap("status", "dns")
    assert ran.code == 1
    assert ran.err.startswith("error: ")
    assert words in ran.err


def test_cluster_that_is_away_is_an_error_with_advice(api: SmallApi, nightcap: Run) -> None:
    api.close()
    ran = nightcap("list")
    assert ran.code == 1
    assert "--context" in ran.err


def test_enable_labels_and_names_who_has_to_restart(api: SmallApi, nightcap: Run) -> None:
    api.put(paths.namespace("shop"))
    api.answers["PATCH", paths.namespace("shop")] = [(200, {"metadata": {"name": "shop"}})]
    owner = {"kind": "ReplicaSet", "name": "web-7d4f", "controller": True}
    for name in ("web-7d4f-1", "web-7d4f-2"):
        labels = {"pod-template-hash": "7d4f"}
        meta = {"labels": labels, "ownerReferences": [owner]}
        api.put(paths.pod("shop", name), metadata=meta, spec={}, status={"phase": "Running"})
    node = {"hostNetwork": True}
    api.put(paths.pod("shop", "node-agent"), spec=node, status={"phase": "Running"})
    api.put(paths.pod("shop", "done"), spec={}, status={"phase": "Succeeded"})
    ran = nightcap("enable", "shop")
    assert ran.out == "namespace/shop enabled\n"
    assert sent(api, "PATCH")[2] == {"metadata": {"labels": {"nightcap.dev/inject": "enabled"}}}
    assert "web-7d4f-1, web-7d4f-2" in ran.err
    assert ran.err.count("rollout restart deployment/web") == 1
    assert "node-agent" in ran.err
    assert "done" not in ran.err
    assert "delete pod node-agent" not in ran.err


def test_disable_takes_the_label_off_and_names_who_keeps_it(api: SmallApi, nightcap: Run) -> None:
    api.put(paths.namespace("shop"))
    api.answers["PATCH", paths.namespace("shop")] = [(200, {"metadata": {"name": "shop"}})]
    api.put(
        paths.pod("shop", "db-0"),
        metadata={
            "annotations": {"nightcap.dev/injected": "{}"},
            "ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}],
        },
        spec={"initContainers": [{"name": "nightcap"}]},
        status={"phase": "Running"},
    )
    ran = nightcap("disable", "shop")
    assert ran.out == "namespace/shop disabled\n"
    assert sent(api, "PATCH")[2] == {"metadata": {"labels": {"nightcap.dev/inject": None}}}
    assert "rollout restart statefulset/db" in ran.err
