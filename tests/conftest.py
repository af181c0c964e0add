"""Which disposable cluster a test process uses, and in which order tests run.

Tests on a cluster wait most of the time, the others compute: they are mixed, so that the
processors have something to do while pods start. Half of the test processes have a second
cluster, so that a test that must be alone on its cluster does not stop the others.
"""

import os
import re
from pathlib import Path

import pytest

# A cluster with its programs and pods takes about 2 GB; below this a second one is no gain.
_MEMORY_FOR_TWO_BYTES = 10 * 2**30


def _cluster_number(environment: dict[str, str], memory_bytes: int) -> int:
    """0 or 1: the cluster of this process, when nobody said which."""
    worker = re.fullmatch(r"gw(\d+)", environment.get("PYTEST_XDIST_WORKER", ""))
    if worker is None or "KUBECONFIG" in environment or memory_bytes < _MEMORY_FOR_TWO_BYTES:
        return 0
    return int(worker[1]) % 2


def _memory_bytes() -> int:
    kilobytes = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(kilobytes[1]) * 1024 if kilobytes else 0


# Before anything imports tests.cluster, which reads it once; subprocesses inherit it.
os.environ.setdefault(
    "NIGHTCAP_CLUSTER_NUMBER", str(_cluster_number(dict(os.environ), _memory_bytes()))
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = _mixed(items)


def _mixed(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those on a cluster spread evenly over the first half of the others; the lonely ones first.

    The order within each kind stays, so that module fixtures are not made twice.
    """
    slow = [item for item in items if item.get_closest_marker("cluster")]
    slow.sort(key=lambda item: item.get_closest_marker("alone") is None)
    quick = [item for item in items if not item.get_closest_marker("cluster")]
    share = len(quick) // (2 * len(slow)) if slow else 0
    mixed: list[pytest.Item] = []
    for number, item in enumerate(slow):
        mixed += [item, *quick[number * share : (number + 1) * share]]
    return mixed + quick[len(slow) * share :]
