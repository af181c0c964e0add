"""Against a small HTTPS server with certificates of our own making."""

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from certs.issue import new_leaf, new_root
from controller.polling import (
    Endpoint,
    EndpointConditions,
    EndpointSlice,
    ReportPoller,
    Trust,
    addresses_of,
)
from controller.reports import ReportBook
from controller.view import RetrievalView

NAME = "nightcap-collector.nightcap-system.svc"
ITEM = {
    "capture": "ab",
    "namespace": "shop",
    "pod": {"name": "web-1", "uid": "cd", "node": "node-a"},
    "report": {"v": 1, "seq": 1, "at": 1, "state": "capturing"},
    "received_at": 1,
}


class Collector(ThreadingHTTPServer):
    """Answers with `items` after the cursor, as the real one does."""

    def __init__(self, tmp_path, name: str) -> None:
        now = time.time()
        self.root = new_root(1, now)
        leaf = new_leaf(self.root, [name], now)
        file = tmp_path / f"{name}.pem"
        file.write_text(leaf.key + leaf.certificate)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)
        self.items: list[dict[str, object]] = []
        self.asked: list[tuple[str, str | None]] = []
        self.broken: tuple[int, bytes] | None = None
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = self.context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """A client that does not trust us is part of a test."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 2
    server: Collector

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        after = parse_qs(url.query).get("after", [""])[0]
        self.server.asked.append((f"{url.path} {after}", self.headers["Authorization"]))
        start = int(after) if after.isdigit() else 0
        answer = {"cursor": str(len(self.server.items)), "reports": self.server.items[start:]}
        status, body = self.server.broken or (200, json.dumps(answer).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args) -> None:  # noqa: A002
        pass


class Bench:
    def __init__(self, tmp_path, name: str = NAME) -> None:
        self.collector = Collector(tmp_path, name)
        self.addresses = frozenset({"127.0.0.1"})
        self.pem = self.collector.root.certificate
        self.token = tmp_path / "token"
        self.token.write_text("first\n")
        self.namespaces: list[set[str]] = []
        self.views: list[RetrievalView] = []
        self.failures = 0
        self.book = ReportBook()
        self.poller = ReportPoller(
            book=self.book,
            trust=Trust(lambda: self.pem, NAME, self.token),
            endpoints=lambda: self.addresses,
            on_reports=lambda news: self.namespaces.append({item.namespace for item in news}),
            on_retrieval=self.views.append,
            on_failure=self.fail,
            port=self.collector.server_port,
            poll_seconds=0.02,
        )

    def fail(self) -> None:
        self.failures += 1


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.poller.stop()
    bench.collector.close()


def test_it_asks_with_our_token_and_goes_on_from_the_cursor(bench):
    bench.collector.items = [ITEM]
    bench.poller.poll()
    bench.token.write_text("renewed")
    bench.poller.poll()
    assert bench.collector.asked == [
        ("/v1/reports ", "Bearer first"),
        ("/v1/reports 1", "Bearer renewed"),
    ]
    assert len(bench.book.of("ab")) == 1
    assert bench.namespaces == [{"shop"}]
    assert bench.views[-1] == RetrievalView()


def test_in_its_thread_it_asks_again_and_again(bench):
    bench.poller.start()
    deadline = time.monotonic() + 5
    bench.collector.items = [ITEM]
    while not bench.namespaces and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bench.namespaces == [{"shop"}]


@pytest.mark.parametrize(
    "broken",
    [(403, b"no right"), (500, b""), (200, b"{"), (200, b"")],
    ids=["403", "500", "not JSON", "empty"],
)
def test_an_answer_that_is_no_good_is_a_failure_and_loses_nothing(bench, broken):
    bench.poller.poll()
    bench.collector.broken = broken
    bench.poller.poll()
    assert bench.failures == 1
    bench.collector.broken = None
    bench.collector.items = [ITEM]
    bench.poller.poll()
    assert len(bench.book.of("ab")) == 1


def test_a_collector_under_another_root_gets_no_token(bench):
    bench.pem = new_root(2, time.time()).certificate
    bench.poller.poll()
    assert (bench.failures, bench.collector.asked) == (1, [])
    bench.pem += bench.collector.root.certificate  # both roots while a rotation lasts
    bench.poller.poll()
    assert len(bench.collector.asked) == 1


def test_a_collector_with_another_name_gets_no_token(tmp_path):
    bench = Bench(tmp_path, name="retrieval.evil.svc")
    bench.poller.poll()
    assert (bench.failures, bench.collector.asked) == (1, [])
    bench.collector.close()


def test_without_a_root_nobody_is_asked(bench):
    bench.pem = ""
    bench.poller.poll()
    assert (bench.failures, bench.collector.asked) == (1, [])


def test_before_the_first_answer_nothing_is_known(bench):
    bench.collector.broken = (503, b"")
    bench.poller.poll()
    assert bench.views[-1].asked is False
    bench.collector.broken = None
    bench.poller.poll()
    assert bench.views[-1] == RetrievalView(asked=True)


def test_a_collector_that_stays_away_is_named(bench, monkeypatch):
    bench.poller.poll()
    bench.collector.broken = (503, b"")
    bench.poller.poll()
    assert bench.views[-1].unreachable == ()  # it may be restarting
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 11)
    bench.poller.poll()
    assert bench.views[-1].unreachable == ("127.0.0.1",)
    bench.collector.broken = None
    bench.poller.poll()
    assert bench.views[-1].is_reachable


def test_no_collector_at_all_is_said_after_a_while(bench, monkeypatch):
    bench.poller.poll()
    bench.addresses = frozenset()
    bench.poller.poll()
    assert bench.views[-1].known
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 11)
    bench.poller.poll()
    assert not bench.views[-1].known


def test_a_collector_that_came_back_elsewhere_is_asked_for_all(bench):
    bench.collector.items = [ITEM]
    bench.poller.poll()
    bench.addresses = frozenset()
    bench.poller.poll()
    bench.addresses = frozenset({"127.0.0.1"})
    bench.poller.poll()
    assert [path for path, _ in bench.collector.asked] == ["/v1/reports ", "/v1/reports "]


def test_only_endpoints_that_are_ready_are_asked():
    pieces = (
        EndpointSlice(
            endpoints=(
                Endpoint(("10.0.0.1",)),
                Endpoint(("10.0.0.2",), EndpointConditions(ready=False)),
                Endpoint(("10.0.0.3", "10.0.0.4"), EndpointConditions(ready=True)),
            )
        ),
        EndpointSlice(endpoints=None),
    )
    assert addresses_of(pieces) == {"10.0.0.1", "10.0.0.3"}
