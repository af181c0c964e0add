"""Asks every collector for what sidecars have reported since it was last asked."""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec
import urllib3

from controller.reports import BadAnswer, ReportBook, parse_answer
from controller.view import PodReport, RetrievalView
from nightcap.contract.objects import ObjectMeta
from nightcap.contract.uploads import COLLECTOR_PORT

log = logging.getLogger(__name__)

REPORTS_PATH: Final = "/v1/reports"
POLL_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 10.0
"""A collector that restarts is not news."""
_MAX_ANSWER_BYTES: Final = 64 * 2**20


class EndpointConditions(msgspec.Struct, frozen=True):
    """`conditions` of an endpoint; absent means true."""

    ready: bool | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()


class EndpointSlice(msgspec.Struct, frozen=True):
    """`discovery.k8s.io/v1` EndpointSlice."""

    metadata: ObjectMeta = ObjectMeta()
    endpoints: tuple[Endpoint, ...] | None = None


def addresses_of(slices: tuple[EndpointSlice, ...]) -> frozenset[str]:
    """The addresses of every endpoint that is ready."""
    return frozenset(
        address
        for piece in slices
        for endpoint in piece.endpoints or ()
        if endpoint.conditions.ready is not False
        for address in endpoint.addresses[:1]
    )


@dataclass(slots=True)
class _Collector:
    """One endpoint: where its reports were read to, and since when it does not answer."""

    cursor: str = ""
    asked: bool = False
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """How collectors are known, and how we are.

    Attributes:
        ca_pem: The roots to trust, as of now; "" while there are none yet.
        server_name: The name that their certificate carries.
        token_file: Our service account's token; the kubelet renews it, so it is read each time.
    """

    ca_pem: Callable[[], str]
    server_name: str
    token_file: Path


class Unanswered(Exception):
    """A collector that could not be asked, or whose answer is no good."""


@dataclass(slots=True)
class ReportPoller:
    """The thread that asks.

    Attributes:
        endpoints: The collectors' addresses, as of now.
        on_reports: Called with the reports that are news.
        on_retrieval: Called after every round with how the collectors answer.
        on_failure: Called for every question that failed.
    """

    book: ReportBook
    trust: Trust
    endpoints: Callable[[], frozenset[str]]
    on_reports: Callable[[list[PodReport]], None]
    on_retrieval: Callable[[RetrievalView], None]
    on_failure: Callable[[], None] = lambda: None
    port: int = COLLECTOR_PORT
    poll_seconds: float = POLL_SECONDS
    _collectors: dict[str, _Collector] = field(default_factory=dict)
    _context: tuple[str, ssl.SSLContext] | None = None
    _pools: dict[str, urllib3.HTTPSConnectionPool] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _empty_since: float | None = None
    _began_at: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Begin to ask, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="report-poller", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present question."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.poll()
            except Exception:
                log.exception("polling failed")
                self.on_failure()
            self._stopping.wait(self.poll_seconds)

    def poll(self) -> None:
        """Ask every collector once."""
        addresses = self.endpoints()
        for gone in self._collectors.keys() - addresses:
            del self._collectors[gone]
            self._drop_pool(gone)
        for address in sorted(addresses):
            collector = self._collectors.setdefault(address, _Collector())
            try:
                reports = self._ask(address, collector)
            except Unanswered as error:
                self._note_failure(address, collector, error)
            else:
                if collector.failing_since is not None:
                    log.info("collector answers again", extra={"collector": address})
                collector.failing_since = None
                if news := self.book.put(reports):
                    self.on_reports(news)
            collector.asked = True
        self.on_retrieval(self._view(time.monotonic()))

    def _view(self, now: float) -> RetrievalView:
        unreachable = tuple(
            sorted(
                address
                for address, collector in self._collectors.items()
                if collector.failing_since is not None
                and now - collector.failing_since >= _PATIENCE_SECONDS
            )
        )
        answered = any(
            collector.asked and collector.failing_since is None
            for collector in self._collectors.values()
        )
        patient = now - self._began_at < _PATIENCE_SECONDS
        if self._collectors:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        return RetrievalView(
            unreachable=unreachable,
            known=self._empty_since is None or now - self._empty_since < _PATIENCE_SECONDS,
            asked=answered or not patient,
        )

    def _note_failure(self, address: str, collector: _Collector, error: Unanswered) -> None:
        self.on_failure()
        self._drop_pool(address)
        if collector.failing_since is None:
            collector.failing_since = time.monotonic()
            log.warning(
                "collector does not answer", extra={"collector": address, "error": str(error)}
            )

    def _ask(self, address: str, collector: _Collector) -> tuple[PodReport, ...]:
        try:
            token = self.trust.token_file.read_text("ascii").strip()
            response = self._pool(address).request(
                "GET",
                f"{REPORTS_PATH}?{urlencode({'after': collector.cursor})}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=urllib3.Timeout(connect=3, read=10),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data = response.read(_MAX_ANSWER_BYTES)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unanswered(str(error)) from error
        if response.status != 200:
            said = data[:200].decode("utf-8", "replace")
            raise Unanswered(f"status {response.status}: {said}")
        try:
            collector.cursor, reports = parse_answer(data)
        except BadAnswer as error:
            raise Unanswered(str(error)) from error
        return reports

    def _pool(self, address: str) -> urllib3.HTTPSConnectionPool:
        context = self._ssl_context()
        pool = self._pools.get(address)
        if pool is None:
            pool = urllib3.HTTPSConnectionPool(
                address,
                self.port,
                maxsize=1,
                ssl_context=context,
                server_hostname=self.trust.server_name,
                assert_hostname=self.trust.server_name,
            )
            self._pools[address] = pool
        return pool

    def _ssl_context(self) -> ssl.SSLContext:
        pem = self.trust.ca_pem()
        if not pem:
            raise Unanswered("there is no root to trust yet")
        if self._context is None or self._context[0] != pem:
            for address in tuple(self._pools):
                self._drop_pool(address)
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=pem)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context = (pem, context)
        return self._context[1]

    def _drop_pool(self, address: str) -> None:
        pool = self._pools.pop(address, None)
        if pool is not None:
            pool.close()
