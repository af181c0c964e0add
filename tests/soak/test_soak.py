"""The soak in a bounded form: `make soak` runs it whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import build
from tests.cluster.progress import to_stderr

pytestmark = pytest.mark.netns
ROOT = Path(__file__).resolve().parents[2]


def soak(pytestconfig: pytest.Config, *options: str) -> dict[str, int]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # a first build takes minutes: show its progress
        build.build_for_cluster(to_stderr)
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-4000:]
    result: dict[str, int] = json.loads(done.stdout)
    assert not result["faults"], (result["faults"], f"--seed {result['seed']}")
    assert done.returncode == 0, done.stderr[-4000:]
    return result


def test_fifty_random_kills_lose_and_double_nothing(pytestconfig: pytest.Config) -> None:
    result = soak(pytestconfig, "--kills=50", "--pods=4", "--pause=0.25", "--tshark=4")
    assert result["lost_segments"] == 0
    # Packets fell into the moments in which a worker was dead, and many more did not.
    assert result["recorded"] > 1000


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_three_hundred_random_kills_lose_and_double_nothing(pytestconfig: pytest.Config) -> None:
    assert soak(pytestconfig, "--kills=300", "--pods=12")["lost_segments"] == 0
