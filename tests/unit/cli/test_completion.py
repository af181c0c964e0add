from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightcap.kube import paths
from tests.unit.cli.conftest import Run
from tests.unit.kube.small_api import SmallApi

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
    code = (
        "import sys; from nightcap.cli.program import run; code = run(['start', '--help']);"
        "heavy = {'kubernetes', 'urllib3', 'msgspec', 'yaml', 'ssl'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deployment/NAME" in done.stdout
