"""How long a person waits for `kubectl nightcap`: help, completion, questions to the cluster."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.building import ROOT
from bench.effort import Effort
from bench.result import Result, alone, quantile, say
from nightcap.kube import paths
from tests.apiserver.private import BASE, PrivateApi
from tests.cluster import programs

NAME = "cli-start"
_MOST_MS = 150.0
_GOAL = f"≤ {_MOST_MS:g} ms"
_SHOP = "shop"


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, or asked by kubectl's completion.

    Attributes:
        point: Which point of the row.
        program: Which of the two that an installation has; or kubectl, for comparison.
        words: Its arguments.
        says: What its answer has to hold.
        most_ms: The goal; None where none was set.
    """

    point: str
    program: str
    words: tuple[str, ...]
    says: str
    most_ms: float | None = _MOST_MS


_OURS, _COMPLETES = "kubectl-nightcap", "kubectl_complete-nightcap"
_COMMANDS = (
    Command("--help", _OURS, ("--help",), "Start a capture of pods"),
    Command("start --help", _OURS, ("start", "--help"), "deployment/NAME"),
    Command("completing a command", _COMPLETES, ("st",), "status"),
    Command("completing an option", _COMPLETES, ("start", "--f"), "--filter"),
    Command("completing a capture", _COMPLETES, ("stop", ""), "dns"),
    Command("completing a pod", _COMPLETES, ("attach", ""), "web-1"),
    Command("completing what start takes", _COMPLETES, ("start", ""), "pod/web-1"),
    Command("list", _OURS, ("list",), "dns", None),
    Command("status", _OURS, ("status", "dns"), "every packet", None),
    Command("kubectl get, for comparison", "kubectl", ("get", "pcap"), "dns", None),
)


def run(effort: Effort) -> Iterator[Result]:
    """A result for each command; a client certificate logs in, over TLS, as administrators do."""
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as folder:
        bin_folder = _install(Path(folder) / "venv")
        api = PrivateApi(Path(folder))
        try:
            environ = _fill(api, Path(folder), bin_folder)
            took = _measure(_COMMANDS, environ, effort.of(40, 3))
        finally:
            api.close()
    for command in _COMMANDS:
        wall, cpu = took[command.point]
        yield alone(
            NAME,
            wall,
            most=command.most_ms or float("inf"),
            goal=_GOAL if command.most_ms else "said",
            unit="ms from start to end",
            point=command.point,
            detail={"cpu_ms": round(quantile(cpu, 0.5), 1), "p95": round(quantile(wall, 0.95), 1)},
        )


def _install(venv: Path) -> Path:
    """The wheel in an environment of its own, as pip and pipx do it; where its programs are."""
    uv = Path(sys.executable).with_name("uv")
    for words in (
        ("venv", "--quiet", "--python", sys.executable, venv),
        ("pip", "install", "--quiet", "--compile-bytecode", "--python", venv, ROOT),
    ):
        subprocess.run([uv, *words], check=True)
    return venv / "bin"


def _fill(api: PrivateApi, folder: Path, bin_folder: Path) -> dict[str, str]:
    """A capture, a pod and a deployment; returns the environment of who asks for them."""
    kubectl = programs.program(programs.KUBERNETES, "kubectl")
    api.kubectl("apply", "-f", str(BASE / "crd.yaml")).check_returncode()
    api.kubectl("wait", "--for=condition=Established", "crd", "--all").check_returncode()
    api.namespace(_SHOP)
    container = {"name": "app", "image": "registry.local/app:1"}
    labels = {"app": "web"}
    for path, body in (
        (paths.packetcaptures(_SHOP), {"apiVersion": "nightcap.dev/v1alpha1",
                                       "kind": "PacketCapture", "metadata": {"name": "dns"},
                                       "spec": {}}),
        (paths.pods(_SHOP), {"metadata": {"name": "web-1"}, "spec": {"containers": [container]}}),
        (paths.workload_list("apps", _SHOP, "deployments"), {
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels},
                                  "spec": {"containers": [container]}}},
        }),
    ):  # fmt: skip
        api.client.request("POST", path, body=body)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_bytes(api.kubeconfig.read_bytes())
    environ = {
        "PATH": f"{bin_folder}:{kubectl.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(kubeconfig),
    }
    set_namespace = ("config", "set-context", "--current", f"--namespace={_SHOP}")
    subprocess.run([kubectl, *set_namespace], env=environ, check=True, capture_output=True)
    return environ


def _measure(
    commands: Sequence[Command], environ: dict[str, str], rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds of each command, by the clock and of CPU; taking turns."""
    took: dict[str, tuple[list[float], list[float]]] = {c.point: ([], []) for c in commands}
    for number in range(-1, rounds):  # the first round reads everything from the disk
        for command in commands:
            wall, cpu = _run(command, environ)
            if number >= 0:
                took[command.point][0].append(wall)
                took[command.point][1].append(cpu)
        say(f"{NAME}: round {number + 1} of {rounds}")
    return took


def _run(command: Command, environ: dict[str, str]) -> tuple[float, float]:
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            [command.program, *command.words], env=environ, stdin=subprocess.DEVNULL,
            stdout=said, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode()
    if process.returncode or command.says not in text:
        raise RuntimeError(f"{command.program} {command.words}: {process.returncode}: {text[:500]}")
    return wall * 1000, (used.ru_utime + used.ru_stime) * 1000
