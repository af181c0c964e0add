"""What keeps a capture from working is a state: it is said, and the sidecar goes on after it.

Beside these: a clock that is wrong (test_clock.py), a disk that is full and a worker without
`NET_RAW` (test_troubles.py), a token that is refused (tests/unit/retrieval/test_with_sidecar.py).
"""

import json
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nightcap.contract.orders import Limit, Orders, dump_orders
from nightcap.contract.reports import Reason, State
from tests.netns.collector import (
    TOKEN,
    Collector,
    Server,
    new_authority,
    root_pem,
    server_context,
)
from tests.netns.pods import ID, Pod, an_order, wait_for
from tests.netns.test_shipping import arrived, has_arrived

pytestmark = pytest.mark.netns


def order(pod: Pod, **changes: Any) -> None:
    pod.order(an_order(**changes))


def unreadable(pod: Pod) -> None:
    orders = json.loads(dump_orders(Orders(pod.collectors, (an_order(),))))
    orders["captures"][0]["snap"] = "all"
    pod.order_text(json.dumps(orders))


def in_the_way(pod: Pod) -> None:
    """Nothing can be written where segments should lie."""
    pod.spool.mkdir(exist_ok=True)
    (pod.spool / ID).write_text("in the way")
    order(pod)


def out_of_the_way(pod: Pod) -> None:
    (pod.spool / ID).unlink()


def bring(interface: str, subnet: int) -> Callable[[Pod], None]:
    def make(pod: Pod) -> None:
        pod.link.add_interface(interface, subnet)

    return make


@pytest.mark.parametrize(
    ("cause", "reason", "cure"),
    [
        pytest.param(unreadable, Reason.BAD_ORDERS, order, id="bad orders"),
        pytest.param(
            partial(order, filter="udp prt 53"), Reason.BAD_FILTER, order, id="bad filter"
        ),
        pytest.param(
            partial(order, interfaces=("net5",)),
            Reason.NO_INTERFACE,
            bring("net5", 5),
            id="no interface",
        ),
        pytest.param(in_the_way, Reason.SPOOL_FULL, out_of_the_way, id="no room"),
    ],
)
def test_a_cause_is_reported_and_the_capture_goes_on_when_it_is_gone(
    shipping_pod: Pod,
    collector: Collector,
    dormant: Path,
    cause: Callable[[Pod], None],
    reason: Reason,
    cure: Callable[[Pod], None],
) -> None:
    pod = shipping_pod
    cause(pod)
    pod.start(dormant=dormant)
    if reason is Reason.SPOOL_FULL:
        pod.wait_open()
        pod.link.send(1)

    def is_told() -> bool:
        report = collector.report(ID)
        return report is not None and (report.state, report.reason) == (State.FAILED, reason)

    wait_for(is_told, "reported", 15)
    assert pod.process is not None
    assert pod.process.poll() is None
    assert any(line["level"] == "error" for line in pod.log())  # each one line of JSON
    cure(pod)

    def is_well() -> bool:
        report = collector.report(ID)
        well = (State.WAITING, State.CAPTURING)
        return report is not None and report.state in well and report.reason is Reason.NONE

    wait_for(is_well, "well", 15)
    assert pod.terminate() == 0
    assert arrived(collector) == ([0] if reason is Reason.SPOOL_FULL else [])
    assert "worker failed" not in pod.events()


def test_without_the_right_to_capture_the_collector_hears_of_it(
    shipping_pod: Pod, collector: Collector
) -> None:
    """What a container was started with does not come back to it: a new pod has it."""
    shipping_pod.order(an_order())
    shipping_pod.start(capabilities="-net_raw")
    wait_for(lambda: collector.report(ID), "reported")
    report = collector.report(ID)
    assert report is not None
    assert (report.state, report.reason) == (State.FAILED, Reason.NO_PRIVILEGE)
    assert "CAP_NET_RAW missing" in report.message
    assert shipping_pod.terminate() == 0


def test_a_pod_without_any_interface_but_lo_waits_for_one(
    shipping_pod: Pod, collector: Collector
) -> None:
    pod = shipping_pod
    pod.link.pod.ip("link", "set", "eth0", "down")
    pod.order(an_order(interfaces=(), limit=Limit(bytes=0, packets=10)))
    pod.start()
    pod.wait_open()
    [line] = [line for line in pod.log() if line["event"] == "capture state"]
    assert (line["state"], line["reason"]) == ("failed", "no-interface")
    assert line["message"] == "there is no interface but lo"
    pod.link.pod.ip("link", "set", "eth0", "up")
    wait_for(lambda: "interface opened" in pod.events(), "opened")
    pod.link.send(10)
    assert pod.wait_end(30) == 0
    assert arrived(collector) == list(range(10))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("another root", "CERTIFICATE_VERIFY_FAILED"),
        ("not valid yet", "CERTIFICATE_VERIFY_FAILED"),
        ("no token", "token cannot be read"),
    ],
)
def test_nothing_is_shipped_until_both_ends_can_prove_themselves(
    shipping_pod: Pod, server: Server, collector: Collector, fault: str, words: str
) -> None:
    """As with a root that was lost, a node whose clock is far behind, a late volume."""
    pod, proven, token = shipping_pod, server.context, shipping_pod.folder / "late"
    if fault == "another root":
        server.context = server_context(pod.folder / "unproven", by=new_authority())
    elif fault == "not valid yet":
        server.context = server_context(pod.folder / "unproven", begins_in=timedelta(days=1))
    else:
        pod.environ = {"NIGHTCAP_TOKEN_FILE": str(token)}
    pod.order(an_order(limit=Limit(bytes=0, packets=10)))
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    said = "collector not reached, trying again"
    wait_for(lambda: said in pod.events(), "said")
    [line] = [line for line in pod.log() if line["event"] == said]
    assert words in line["error"]
    assert collector.tokens == set()
    server.context = proven
    token.write_text(TOKEN)
    assert pod.wait_end(20) == 0
    assert arrived(collector) == list(range(10))


def test_what_was_recorded_under_a_root_that_is_none_is_shipped_under_a_good_one(
    shipping_pod: Pod, collector: Collector
) -> None:
    """A container's environment does not change; one that is started again has another."""
    pod = shipping_pod
    pod.environ = {"NIGHTCAP_COLLECTOR_CA": "no certificate"}
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(10)
    said = "root certificate cannot be used, nothing is shipped"
    wait_for(lambda: said in pod.events(), "said")
    assert pod.terminate() == 0
    assert collector.reports == []
    pod.environ = {"NIGHTCAP_COLLECTOR_CA": root_pem()}
    pod.start()
    wait_for(partial(has_arrived, collector, list(range(10))), "shipped", 15)
    assert pod.process is not None
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait_end() == 0
