from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightcap.kube import paths
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_files import BASE
from tests.unit.kube.small_api import Answer, SmallApi

ANSWER = "from nightcap.cli.completion import answer_kubectl; answer_kubectl()"


def completed(*words: str, **environ: str) -> list[str]:
    """What `kubectl_complete-nightcap` says, a process of its own as kubectl makes it."""
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_commands_complete_with_their_help() -> None:
    assert completed("st") == [
        "start\tStart a capture of pods",
        "status\tSay what a capture does, and why nothing is captured",
        "stop\tStop captures; their files stay",
        ":4",
    ]
    assert "--filter\tpcap-filter(7)." in completed("start", "--f")


def test_captures_and_pods_complete_by_name(api: SmallApi, kubeconfig: Path) -> None:
    for name in ("dns", "dns-2", "all"):
        api.put(paths.packetcapture("shop", name))
    api.put(paths.packetcapture("other", "there"))
    api.put(paths.pod("shop", "web-1"))
    api.put(f"{paths.workload_list('apps', 'shop', 'deployments')}/web")
    assert completed("stop", "d") == ["dns", "dns-2", ":4"]
    assert completed("-n", "other", "get", "") == ["there", ":4"]
    assert completed("get", "dns", "--pod", "") == ["web-1", ":4"]
    assert completed("start", "") == ["deployment/web", "pod/web-1", ":4"]
    assert completed("list", "--context", "b") == ["bare", ":4"]


def test_cluster_that_is_away_completes_to_nothing() -> None:
    nowhere = {"KUBECONFIG": "/no/such/file"}
    assert completed("stop", "", **nowhere) == [":4"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_asks_this_program(nightcap: Run, shell: str) -> None:
    ran = nightcap("completion", shell)
    assert ran.code == 0
    assert f"_KUBECTL_NIGHTCAP_COMPLETE={shell}_complete" in ran.out
    assert "kubectl-nightcap" in ran.out


def test_help_loads_no_client_of_the_api() -> None:
    """Those are 400 ms on their own; help and completion of commands have to be instant."""
    code = "from nightcap.cli.program import run; code = run(['start', '--help'])"
    said = loading_none_of({"kubernetes", "urllib3", "msgspec", "yaml", "ssl"}, code)
    assert "deployment/NAME" in said
    modules = {
        f"nightcap.cli.{name}" for name in ("captures", "start", "doctor", "files", "targets")
    }
    code = "from nightcap.cli.program import run; code = run(['--help'])"
    assert "Start a capture of pods" in loading_none_of(modules, code)


def test_names_complete_without_the_official_client(api: SmallApi, kubeconfig: Path) -> None:
    """It takes longer to import than a person waits for a completion."""
    api.put(paths.packetcapture("shop", "dns"))
    api.put(paths.pod("shop", "web-1"))
    for words, candidate in ((["stop", ""], "dns"), (["attach", ""], "web-1"),
                             (["list", "--context", "sh"], "shop")):  # fmt: skip
        code = f"{ANSWER.rpartition(';')[0]}; sys.argv[1:] = {words}; answer_kubectl(); code = 0"
        said = loading_none_of({"kubernetes", "urllib3", "msgspec"}, code)
        assert said.splitlines()[0] == candidate
    assert api.headers[-1]["Authorization"] == "Bearer the-token"


def test_targets_are_asked_for_over_one_connection(api: SmallApi, kubeconfig: Path) -> None:
    api.put(paths.pod("shop", "web-1"))
    api.put(f"{paths.workload_list('apps', 'shop', 'deployments')}/web")
    assert completed("start", "") == ["deployment/web", "pod/web-1", ":4"]
    assert len(api.headers) == 2
    assert len({headers["X-Port"] for headers in api.headers}) == 1


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["list"], id="list"),
        pytest.param(["status", "dns"], id="status"),
        pytest.param(["stop", "dns"], id="stop"),
        pytest.param(["rm", "-y", "dns"], id="rm"),
        pytest.param(["start", "--all", "--name", "dns"], id="start"),
        pytest.param(["files", "dns"], id="files"),
        pytest.param(["follow", "dns", "-w", os.devnull], id="follow"),
    ],
)
def test_commands_run_without_the_official_client(
    api: SmallApi, kubeconfig: Path, command: list[str]
) -> None:
    """It takes a quarter of a second on its own; who sits before a terminal waits for it."""
    dns = paths.packetcapture("shop", "dns")
    api.put(dns)
    done: list[Answer] = [(200, {"metadata": {"name": "dns"}})]
    api.answers["PATCH", dns] = api.answers["DELETE", dns] = done
    api.answers["POST", paths.packetcaptures("shop")] = done
    api.answers["GET", f"{BASE}/files"] = [(200, {"files": []})]
    api.answers["GET", f"{BASE}/live.pcapng"] = [(200, b"")]
    code = f"from nightcap.cli.program import run; code = run({command!r})"
    loading_none_of({"kubernetes", "urllib3", "requests"}, code)


def test_kubeconfigs_of_other_kinds_complete_by_the_official_client(
    api: SmallApi, kubeconfig: Path
) -> None:
    api.put(paths.packetcapture("shop", "dns"))
    config = json.loads(kubeconfig.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    said = {
        "kind": "ExecCredential",
        "apiVersion": plugin["apiVersion"],
        "status": {"token": "of-the-plugin"},
    }
    plugin |= {"command": "echo", "args": [json.dumps(said)]}  # type: ignore[dict-item]
    config["users"] = [{"name": "me", "user": {"exec": plugin}}]
    kubeconfig.write_text(json.dumps(config))
    assert completed("stop", "") == ["dns", ":4"]
    assert api.headers[-1]["Authorization"] == "Bearer of-the-plugin"


def loading_none_of(modules: set[str], code: str) -> str:
    """What a program says, which must load none of these modules."""
    code = (
        f"import sys; {code};"
        f"loaded = {modules!r} & set(sys.modules);"
        "sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
