"""The node's clock is wrong, or jumps: everything else is as in a pod."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nightcap.contract.orders import Limit
from tests.netns.built import start_script
from tests.netns.collector import Collector
from tests.netns.pods import ID, Pod, an_order, wait_for
from tests.netns.written import ledger, numbers, segments, settle

pytestmark = pytest.mark.netns

# The clock alone is another; a file says how many seconds it is off.
_SCRIPT = """
import runpy, sys, time
real = time.time
def shifted():
    with open({offset!r}) as file:
        return real() + float(file.read() or 0)
time.time = shifted
runpy.run_path({start!r}, run_name="__main__")
"""
Clock = Callable[[float], None]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "offset").write_text("0")
    script = tmp_path / "start.py"
    script.write_text(_SCRIPT.format(offset=str(tmp_path / "offset"), start=str(start_script())))
    return script


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Puts the clock so many seconds away from the true time."""

    def put(seconds: float) -> None:
        (tmp_path / "offset.new").write_text(str(seconds))
        (tmp_path / "offset.new").rename(tmp_path / "offset")

    return put


def test_in_1970_it_records_ships_and_tells_its_clock(
    shipping_pod: Pod, collector: Collector, script: Path, clock: Clock
) -> None:
    pod = shipping_pod
    clock(-time.time())
    pod.order(an_order(limit=Limit(bytes=0, packets=10)))
    pod.start(script=script)
    pod.wait_open()
    pod.link.send(10)
    assert pod.wait_end(15) == 0
    assert numbers(*collector.files(ID).values()) == list(range(10))
    report = collector.report(ID)
    assert report is not None
    assert report.at < 3600
    assert report.shipped


def test_a_jump_past_the_end_ends_it_and_the_way_back_does_not_reopen(
    pod: Pod, script: Path, clock: Clock
) -> None:
    pod.order(an_order(until=int(time.time()) + 600))
    pod.start(script=script)
    pod.wait_open()
    pod.link.send(5)
    settle()
    clock(3600)
    wait_for(lambda: "capture finished" in pod.events(), "ended by the clock")
    clock(0)
    pod.link.send(5, first=5)
    time.sleep(1.5)  # longer than between two looks at the clock
    assert pod.events().count("interface opened") == 1
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(5))
    end = ledger(pod)["end"]
    assert isinstance(end, dict)
    assert end["reason"] == "time"


def test_a_jump_back_changes_nothing_for_what_runs(pod: Pod, script: Path, clock: Clock) -> None:
    pod.order(an_order())
    pod.start(script=script)
    pod.wait_open()
    pod.link.send(5)
    clock(-86400)
    time.sleep(1.2)
    pod.link.send(5, first=5)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(10))
