"""The collector's application over a real store and an API that tests write."""

import json
from typing import Any

from werkzeug.test import Client, TestResponse

from nightcap.contract.captures import PacketCapture, parse_capture
from nightcap.contract.ceilings import Ceiling
from nightcap.kube.reviews import TokenReviewer
from retrieval.collector.admission import Admission, live_pod
from retrieval.collector.app import CollectorApp, Parties
from retrieval.collector.captures import Captures, live_list
from retrieval.collector.janitor import Janitor
from retrieval.collector.reports import ReportIndex
from retrieval.collector.tokens import SidecarTokens
from retrieval.store.base import Store
from tests.unit.retrieval.builders import (
    CAPTURE,
)
from tests.unit.retrieval.fake_api import FakeApi

TOKEN = "sidecar-of-web-0"
PATH = f"/v1/captures/{CAPTURE}/eth0/1"


class Watched:
    """A watch that shows what it is given; empty it is one that lags."""

    def __init__(self) -> None:
        self.captures: list[PacketCapture] = []

    def show(self, *captures: dict[str, Any]) -> None:
        self.captures = [parse_capture(json.dumps(capture).encode()) for capture in captures]

    def by_uid(self, uid: str) -> PacketCapture | None:
        return next((c for c in self.captures if c.metadata.uid == uid), None)

    def items(self) -> tuple[PacketCapture, ...]:
        return tuple(self.captures)


STORE_BYTES = 2**20


class Collector:
    """The application over a real store and an API that tests write."""

    def __init__(self, store: Store, api: FakeApi) -> None:
        self.store, self.api = store, api
        self.watch = Watched()
        self.ceiling: Ceiling | None = None
        self.captures = Captures(self.watch, live_list(api.client), lambda _: self.ceiling)
        self.reports = ReportIndex(store, boot_id="boot")
        self.janitor = Janitor(store, self.captures, self.reports, limit_bytes=STORE_BYTES)
        self.ready = True
        reviewer = TokenReviewer(api.client, ttl_seconds=0)
        app = CollectorApp(
            store,
            SidecarTokens(lambda token: reviewer.review(token, ("nightcap",))),
            Admission(self.captures, live_pod(api.client), store),
            self.reports,
            Parties(
                person=reviewer.review,
                may_read_reports=lambda who: who.username == "controller",
                is_ready=lambda: self.ready,
                is_full=lambda: self.janitor.is_full,
            ),
        )
        self.client = Client(app)

    def patch(
        self,
        body: bytes = b"",
        offset: int | str = 0,
        *,
        path: str = PATH,
        complete: bool = False,
        token: str = TOKEN,
        **headers: str,
    ) -> TestResponse:
        sent = {
            "Authorization": f"Bearer {token}",
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1" if complete else "?0",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.patch(path, data=body, headers=sent)

    def head(self, path: str = PATH, token: str = TOKEN) -> TestResponse:
        return self.client.head(path, headers={"Authorization": f"Bearer {token}"})


def show(collector: Collector, *captures: dict[str, Any]) -> None:
    collector.api.captures = list(captures)
    collector.watch.show(*captures)


def reports(collector: Collector, after: str = "", who: str = "controller-token") -> Any:
    headers = {"Authorization": f"Bearer {who}"}
    answer = collector.client.get(f"/v1/reports?after={after}", headers=headers)
    return answer.json if answer.status_code == 200 else answer.status_code
