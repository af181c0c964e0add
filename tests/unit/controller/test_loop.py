import threading
import time

import pytest

from controller.actions import Action, PatchOrders, UpdateStatus
from controller.loop import Loop
from controller.metrics import Metrics
from controller.reconcile import Plan, reconcile
from controller.view import NamespaceView
from tests.unit.controller.builders import NOW, a_capture, a_pod, a_view, at


class Bench:
    """A loop over views that a test sets; the clock is real, shifted to NOW."""

    def __init__(self) -> None:
        self.shift = NOW - time.time()
        self.views: dict[str, NamespaceView] = {}
        self.looked: list[str] = []
        self.done: list[Action] = []
        self.again_at: float | None = None
        self.tidied = 0
        self.metrics = Metrics()
        self.leading = threading.Event()
        self.leading.set()
        self.loop = Loop(
            self.decide, self.submit, self.metrics, self.clock, self.tidy, leading=self.leading
        )

    def clock(self) -> float:
        return time.time() + self.shift

    def decide(self, namespace: str, now: float) -> Plan:
        self.looked.append(namespace)
        return reconcile(self.views[namespace], now)

    def submit(self, action: Action) -> float | None:
        self.done.append(action)
        return self.again_at

    def tidy(self) -> None:
        self.tidied += 1

    def wait(self, condition, seconds: float = 5) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.002)
        return bool(condition())


@pytest.fixture
def bench():
    bench = Bench()
    bench.views = {"shop": a_view([a_capture()], [a_pod()]), "bank": a_view()}
    yield bench
    bench.loop.stop()
    assert not any(thread.name == "reconcile" for thread in threading.enumerate())


def test_news_lead_to_actions_within_tens_of_milliseconds(bench):
    bench.loop.start()
    began_at = time.monotonic()
    bench.loop.mark("shop")
    assert bench.wait(lambda: any(isinstance(a, PatchOrders) for a in bench.done))
    assert time.monotonic() - began_at < 0.3
    assert isinstance(bench.done[0], PatchOrders)  # orders before everything else


def test_only_namespaces_with_news_are_looked_at(bench):
    bench.loop.start()
    bench.loop.mark("bank")
    assert bench.wait(lambda: bench.looked)
    time.sleep(0.05)
    assert bench.looked == ["bank"]


def test_news_that_come_together_are_looked_at_together(bench):
    bench.loop.start()
    for _ in range(500):
        bench.loop.mark("bank")
    assert bench.wait(lambda: bench.looked)
    time.sleep(0.05)
    assert len(bench.looked) <= 3


def test_a_namespace_is_looked_at_again_when_its_time_comes(bench):
    starts_at = int(NOW) + 1
    bench.views["shop"] = a_view([a_capture(startTime=at(starts_at))], [a_pod()])
    bench.loop.start()
    bench.loop.mark("shop")
    assert bench.wait(lambda: any(isinstance(a, UpdateStatus) for a in bench.done))
    assert not any(isinstance(a, PatchOrders) for a in bench.done)
    assert bench.wait(lambda: any(isinstance(a, PatchOrders) for a in bench.done))
    assert 0 <= bench.clock() - starts_at < 0.5


def test_a_write_that_was_just_done_is_decided_anew_later(bench):
    bench.again_at = NOW + 0.3
    bench.loop.start()
    bench.loop.mark("shop")
    assert bench.wait(lambda: len(bench.looked) == 1)
    assert bench.wait(lambda: len(bench.looked) >= 2)
    assert bench.clock() >= NOW + 0.3


def test_later_means_later(bench):
    bench.loop.start()
    began_at = time.monotonic()
    bench.loop.mark_later("bank", 0.2)
    assert bench.wait(lambda: bench.looked)
    assert time.monotonic() - began_at >= 0.19


def test_an_error_in_one_namespace_stops_no_other(bench):
    bench.loop.start()
    bench.loop.mark("broken")  # its view raises; it is looked at first
    bench.loop.mark("shop")
    assert bench.wait(lambda: bench.done)
    assert bench.loop.is_alive
    value = bench.metrics.registry.get_sample_value("nightcap_controller_reconciles_failed_total")
    assert value == 1


def test_tidying_happens_about_once_a_minute(bench):
    bench.loop.start()
    bench.loop.mark("bank")
    assert bench.wait(lambda: bench.looked)
    assert bench.tidied == 0
    bench.shift += 61
    bench.loop.mark("bank")
    assert bench.wait(lambda: bench.tidied == 1)


def test_a_replica_that_does_not_lead_keeps_its_news_until_it_does(bench):
    bench.leading.clear()
    bench.loop.start()
    bench.loop.mark("shop")
    assert not bench.wait(lambda: bench.looked, seconds=0.3)
    bench.leading.set()
    assert bench.wait(lambda: bench.done)
    assert bench.looked == ["shop"]
