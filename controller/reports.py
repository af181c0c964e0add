"""The reports of all sidecars, as the collectors hand them on.

Holds the latest report of each (capture, pod), and the format in which collectors answer:

    {"cursor": "...", "reports": [{"capture": uid, "namespace": ns,
      "pod": {"name", "uid", "node"}, "report": {...}, "received_at": epoch seconds,
      "files": {"count", "names": the newest}, "refused": why the store takes no more}]}
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec

from controller.view import PodReport
from nightcap.contract.reports import BadReport, parse_report


class _Pod(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""
    node: str = ""


class _Files(msgspec.Struct, frozen=True):
    count: int = 0
    names: tuple[str, ...] = ()


class _Item(msgspec.Struct, frozen=True):
    capture: str
    namespace: str
    pod: _Pod
    report: msgspec.Raw
    received_at: float = 0.0
    files: _Files = _Files()
    refused: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What a collector answers to `GET /v1/reports`."""

    cursor: str = ""
    reports: tuple[_Item, ...] = ()


class BadAnswer(ValueError):
    """An answer that cannot be read."""


_ANSWER = msgspec.json.Decoder(Answer)


def parse_answer(data: bytes) -> tuple[str, tuple[PodReport, ...]]:
    """Read an answer; a single report that is wrong is left out, the others stand.

    Returns:
        (cursor for the next question, reports).

    Raises:
        BadAnswer: not of the format.
    """
    try:
        answer = _ANSWER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"reports cannot be read: {error}") from error
    reports = []
    for item in answer.reports:
        try:
            report = parse_report(json.dumps(json.loads(bytes(item.report))))
        except BadReport:
            continue
        reports.append(
            PodReport(
                capture=item.capture,
                namespace=item.namespace,
                pod_name=item.pod.name,
                pod_uid=item.pod.uid,
                node=item.pod.node,
                report=report,
                received_at=item.received_at,
                file_count=item.files.count,
                file_names=item.files.names,
                refused=item.refused,
            )
        )
    return answer.cursor, tuple(reports)


class ReportBook:
    """The latest report of each capture in each pod; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, dict[str, PodReport]] = {}
        self._unknown: set[str] = set()

    def put(self, reports: Iterable[PodReport]) -> list[PodReport]:
        """Take reports; the highest `seq` of a (capture, pod) wins.

        Returns:
            Those that were news, as they are now: files come and go between reports.
        """
        news = []
        with self._lock:
            for item in reports:
                of_capture = self._reports.setdefault(item.capture, {})
                old = of_capture.get(item.pod_uid)
                new = item
                if old is not None and item.report.seq <= old.report.seq:
                    if item.report.seq < old.report.seq:
                        continue
                    new = replace(old, file_count=item.file_count, file_names=item.file_names)
                if new != old:
                    of_capture[item.pod_uid] = new
                    news.append(new)
        return news

    def of(self, capture_uid: str) -> Mapping[str, PodReport]:
        """Pod uid -> report of one capture, as of now."""
        with self._lock:
            return dict(self._reports.get(capture_uid, {}))

    def snapshot(self) -> Mapping[str, Mapping[str, PodReport]]:
        """Capture uid -> pod uid -> report; each capture's as of when it is first asked for."""
        return _Snapshot(self)

    def forget(self, capture_uid: str) -> None:
        """Drop the reports of a capture that is gone."""
        with self._lock:
            self._reports.pop(capture_uid, None)

    def tidy(self, known: set[str]) -> None:
        """Drop reports of captures that were unknown at two calls in a row.

        A report can come before the watch has told of its capture; a collector can also
        hold reports of captures that were deleted while nobody watched.
        """
        with self._lock:
            unknown = self._reports.keys() - known
            for uid in unknown & self._unknown:
                del self._reports[uid]
            self._unknown = unknown - self._unknown


class _Snapshot(Mapping[str, Mapping[str, PodReport]]):
    """Copies only what somebody looks at."""

    def __init__(self, book: ReportBook) -> None:
        self._book = book
        self._copied: dict[str, Mapping[str, PodReport]] = {}

    def __getitem__(self, capture_uid: str) -> Mapping[str, PodReport]:
        found = self._copied.get(capture_uid)
        if found is None:
            found = self._copied[capture_uid] = self._book.of(capture_uid)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._copied)

    def __len__(self) -> int:
        return len(self._copied)
