import sys
import threading

import pytest

from sidecar.filter_check import DIRECT_BYTES, FilterCheck
from tests.netns.pods import wait_for

LONG = " or ".join(["udp port 53"] * 40)


def test_a_short_filter_is_not_checked() -> None:
    check = FilterCheck("udp port 53", lambda: None)
    assert (check.is_done, check.fault, check.doubt) == (True, "", "")


@pytest.mark.parametrize(
    ("expression", "fault"),
    [(LONG, ""), (" or ".join(["portrange 1-9"] * 250), "too much CPU")],
    ids=["cheap", "dear"],
)
def test_a_long_filter_is_judged_by_what_it_costs(expression: str, fault: str) -> None:
    done = threading.Event()
    assert len(expression) > DIRECT_BYTES
    check = FilterCheck(expression, done.set)
    assert done.wait(30)
    assert check.is_done
    assert fault in check.fault
    assert bool(check.fault) == bool(fault)


def test_a_machine_that_gives_no_answer_is_no_fault_of_the_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was taken for one, and the capture was refused until its orders changed."""
    done = threading.Event()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        check = FilterCheck(LONG, done.set, again_seconds=0.05)
        wait_for(lambda: check.doubt, "doubt")
        assert "could not be checked" in check.doubt
        assert not check.is_done
    assert done.wait(30)
    assert (check.is_done, check.fault, check.doubt) == (True, "", "")
