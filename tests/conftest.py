"""In which order tests run.

Tests on the cluster wait most of the time, the others compute: they are mixed, so that the
processors have something to do while pods start.
"""

import signal

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the suite in the background has it ignore Ctrl-C, and so would all that
    # the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


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
