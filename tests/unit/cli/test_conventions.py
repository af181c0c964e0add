"""What people know from kubectl holds here: names with their kind, options, ends of pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightcap.kube import paths
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_commands import CAPTURES, DNS, a_status
from tests.unit.kube.small_api import SmallApi


def test_names_that_were_printed_can_be_given_back(api: SmallApi, nightcap: Run) -> None:
    api.put(DNS, metadata={"uid": "u"})
    (printed,) = nightcap("list", "-o", "name").out.split()
    assert printed == "packetcapture.nightcap.dev/dns"
    for name in (printed, "pcap/dns", "dns"):
        assert nightcap("rm", name, "--dry-run", "-o", "name").out.split() == [printed]
    wrong = nightcap("status", "deployment/dns")
    assert wrong.code == 2
    assert "'deployment/dns': write the name alone, or packetcapture/NAME" in wrong.err
    api.put(paths.namespace("shop"))
    api.answers["PATCH", paths.namespace("shop")] = [(200, {"metadata": {"name": "shop"}})]
    assert nightcap("enable", "namespace/shop", "-o", "name").out == "namespace/shop\n"


def test_dry_run_without_a_value_takes_no_name_for_it(api: SmallApi, nightcap: Run) -> None:
    api.put(DNS)
    assert "stopped (dry run)" in nightcap("stop", "--dry-run", "dns").out
    assert nightcap("stop", "--dry-run=nix", "dns").code == 2
    assert "PATCH" not in {method for method, *_ in api.requests}


def test_pods_that_are_not_there_are_named(api: SmallApi, nightcap: Run) -> None:
    """A capture of pods to come is fine; one of a misspelt pod waits for ever."""
    api.put(paths.pod("shop", "web-1"))
    missing = a_status(404, "NotFound", 'pods "wbe-1" not found')
    api.answers["GET", paths.pod("shop", "wbe-1")] = [missing]
    api.answers["POST", CAPTURES] = [(201, {"metadata": {"name": "x"}})]
    started = nightcap("start", "web-1", "wbe-1", "--name", "x")
    assert started.code == 0
    assert "there is no pod wbe-1 in namespace shop now" in started.err
    assert "no pod web-1" not in started.err


def test_missing_namespace_is_no_missing_capture(api: SmallApi, nightcap: Run) -> None:
    missing = a_status(404, "NotFound", 'namespaces "nix" not found')
    api.answers["PATCH", paths.namespace("nix")] = [missing]
    assert "kubectl get namespaces shows" in nightcap("enable", "nix").err


@pytest.mark.parametrize("command", [["list", "-o", "json"], ["list"]])
def test_who_has_seen_enough_is_no_error(
    api: SmallApi, kubeconfig: Path, command: list[str]
) -> None:
    for at in range(2000):
        api.put(paths.packetcapture("shop", f"capture-{at}"))
    read, write = os.pipe()
    asked = subprocess.Popen(
        [sys.executable, "-m", "nightcap.cli", *command], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    _, said = asked.communicate()
    assert (asked.returncode, said) == (0, b"")
