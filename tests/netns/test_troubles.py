"""What cannot be captured, or not yet, is a state and never an end."""

import signal
import time

import pytest

from tests.netns.pods import ID, ID_2, Pod, an_order, wait_for
from tests.netns.written import ledger, numbers, segments, settle

pytestmark = pytest.mark.netns


def test_bad_filters_missing_interfaces_and_bad_orders_are_states_not_ends(pod: Pod) -> None:
    pod.order(
        an_order(filter="udp port port"),
        an_order(id=ID_2, interfaces=("net9",)),
        an_order(id="0a", filter="host example.org"),
        an_order(id="0b", filter="udp) or (tcp"),
    )
    pod.start()
    pod.wait_open()
    facts = {line["capture"]: line for line in pod.log() if line["event"] == "capture state"}
    assert {id_: line["reason"] for id_, line in facts.items()} == {
        ID: "bad-filter",
        ID_2: "no-interface",
        "0a": "bad-filter",
        "0b": "bad-filter",
    }
    assert "syntax error" in facts[ID]["message"]
    assert pod.process is not None
    pod.order_text("{")
    wait_for(lambda: "orders cannot be read" in pod.events(), "bad orders said")
    assert pod.process.poll() is None
    pod.order(an_order())
    wait_for(lambda: "interface opened" in pod.events(), "mended filter opens")
    assert pod.terminate() == 0


def test_a_long_filter_is_open_when_the_marker_says_so_and_holds_up_nobody(pod: Pod) -> None:
    """The slowest known to compile; it is compiled in a helper process first."""
    slow = " or ".join(["portrange 5300-5360"] * 44)
    pod.order(an_order(id=ID_2, filter=slow), an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(5)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == numbers(*segments(pod, ID_2)) == list(range(5))
    opened = [line["capture"] for line in pod.log() if line["event"] == "interface opened"]
    assert opened == [ID, ID_2]


def test_a_named_interface_that_comes_later_is_captured(pod: Pod) -> None:
    pod.order(an_order(interfaces=("net3",)))
    pod.start()
    pod.wait_open()
    assert "interface not captured" in pod.events()
    pod.link.add_interface("net3", 3)
    wait_for(lambda: "interface opened" in pod.events(), "opened when it came")
    assert pod.terminate() == 0


def test_without_the_right_to_capture_it_says_so_and_stays(pod: Pod) -> None:
    pod.order(an_order())
    pod.start(capabilities="-net_raw")
    pod.wait_open()
    [line] = [line for line in pod.log() if line["event"] == "capture state"]
    assert (line["state"], line["reason"]) == ("failed", "no-privilege")
    assert "CAP_NET_RAW missing" in line["message"]
    assert pod.terminate() == 0


def test_what_the_kernel_dropped_to_the_last_is_in_the_ledger_when_nobody_else_hears_of_it(
    pod: Pod,
) -> None:
    """The drops come after the last look at the counters, and right before the end."""
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    settle()
    assert pod.process is not None
    pod.process.send_signal(signal.SIGSTOP)
    # More than the ring holds.
    sent = 6000
    pod.link.send(sent - 10, size=1400, first=10)
    pod.process.send_signal(signal.SIGTERM)
    pod.process.send_signal(signal.SIGCONT)
    assert pod.wait_end() == 0
    counted, kept = ledger(pod), numbers(*segments(pod))
    assert 10 < len(kept) < sent
    assert (counted["packets"], counted["received"]) == (len(kept), sent)
    assert counted["dropped"] == sent - len(kept)


def test_a_link_that_goes_down_and_up_is_captured_on(pod: Pod) -> None:
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.pod.ip("link", "set", "eth0", "down")
    time.sleep(0.3)
    pod.link.pod.ip("link", "set", "eth0", "up")
    time.sleep(1)  # the kernel's own link watch takes its time
    pod.link.send(5)
    settle()
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(5))
