from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from controller.health import HealthServer
from controller.metrics import Metrics


class Facts:
    troubles: tuple[str, ...] = ()
    alive = True


@pytest.fixture
def served() -> Iterator[tuple[HealthServer, Facts]]:
    facts, metrics = Facts(), Metrics()
    metrics.orders_written.inc(3)
    server = HealthServer(0, metrics.registry, lambda: facts.troubles, lambda: facts.alive)
    server.start()
    yield server, facts
    server.stop()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def test_it_is_ready_only_when_nothing_keeps_it_and_says_what_does(served):
    server, facts = served
    assert get(server, "/readyz")[0] == 200
    facts.troubles = ("the watch of pods has not synced",)
    assert get(server, "/readyz") == (503, "the watch of pods has not synced\n")


def test_it_is_alive_while_its_loop_is(served):
    server, facts = served
    assert get(server, "/healthz")[0] == 200
    facts.alive = False
    assert get(server, "/healthz")[0] == 500


def test_metrics_are_shown(served):
    status, body = get(served[0], "/metrics")
    assert status == 200
    assert "nightcap_controller_orders_written_total 3.0" in body


def test_any_other_path_is_not_found(served):
    assert get(served[0], "/../etc/passwd")[0] == 404
