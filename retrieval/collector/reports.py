"""The reports of all streams: the latest of each, and what changed since somebody looked.

Kept in memory, written beside the segments at each change of state and at most every 30 s.
A cursor is this process's boot and a number; one of another boot gets everything.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from nightcap.contract.reports import Report, report_value
from nightcap.contract.segments import StreamKey
from retrieval.collector.file_names import FileNames
from retrieval.store.base import Store, StoreFailed, StoreFull, StreamMeta
from retrieval.stored_reports import StoredReport, dump_stored, load_stored

WRITE_SECONDS: Final = 30.0
READ_AT_ONCE: Final = 16

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    stream: StreamKey
    meta: StreamMeta
    report: Report
    received_at: float
    written_at: float
    is_written: bool
    refused: str = ""
    """Why the store did not take its last append; empty when it did."""


class ReportIndex:
    """All reports, in the order in which they changed."""

    def __init__(self, store: Store, *, boot_id: str | None = None) -> None:
        self._store = store
        self._names = FileNames(store)
        self._boot_id = boot_id or secrets.token_hex(8)
        self._lock = threading.Lock()
        self._revision = 0
        # Ordered by revision, the latest last.
        self._entries: dict[StreamKey, tuple[int, _Entry]] = {}

    def refresh(self) -> None:
        """Read what other replicas have written since: one that is gone answers for nothing."""
        for stream, seq in self._store.reported().items():
            with self._lock:
                _, known = self._entries.get(stream, (0, None))
            if known is not None and known.report.seq >= seq:
                continue
            entry = self._read(stream)
            if entry is None:
                continue
            with self._lock:
                _, known = self._entries.get(stream, (0, None))
                if known is None or known.report.seq < entry.report.seq:
                    self._put(entry)

    def load(self) -> None:
        """Read what the store has of earlier boots."""
        streams = (
            stream
            for namespace, capture in self._store.captures()
            for stream in self._store.streams(namespace, capture)
        )
        # Many at once: a store may be a network away.
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            for entry in pool.map(self._read, streams):
                if entry is not None:
                    with self._lock:
                        self._put(entry)

    def accept(
        self, stream: StreamKey, read_meta: Callable[[], StreamMeta], report: Report, now: float
    ) -> bool:
        """Take a report; one that is not newer than what is known is passed over.

        Args:
            stream: Whose it is.
            read_meta: Asked for the stream's meta when this is its first report.
            report: The report.
            now: Seconds since the epoch.

        Returns:
            Whether it was news.
        """
        with self._lock:
            _, known = self._entries.get(stream, (0, None))
            if known is not None and report.seq <= known.report.seq:
                return False
            is_due = known is None or _is_turn(known.report, report)
            is_due = is_due or (known is not None and now - known.written_at >= WRITE_SECONDS)
            written_at = known.written_at if known is not None else 0.0
            meta = known.meta if known is not None else read_meta()
            refused = known.refused if known is not None else ""
            entry = _Entry(stream, meta, report, now, written_at, False, refused)
            self._put(entry)
        if is_due:
            self._write(entry, now)
        return True

    def touch(self, stream: StreamKey) -> None:
        """The stream's files changed."""
        with self._lock:
            _, entry = self._entries.get(stream, (0, None))
            if entry is not None:
                self._put(entry)

    def kept(self, stream: StreamKey) -> None:
        """An append was taken."""
        with self._lock:
            _, entry = self._entries.get(stream, (0, None))
            if entry is not None:
                entry.refused = ""
                self._put(entry)

    def refused(self, stream: StreamKey, sentence: str) -> None:
        """An append was not taken, for want of room in the store."""
        with self._lock:
            _, entry = self._entries.get(stream, (0, None))
            if entry is not None and entry.refused != sentence:
                entry.refused = sentence
                self._put(entry)

    def forget(self, namespace: str, capture: str) -> None:
        """The capture was deleted."""
        with self._lock:
            for stream in tuple(self._entries):
                if (stream.namespace, stream.capture) == (namespace, capture):
                    del self._entries[stream]

    def write_due(self, now: float, *, everything: bool = False) -> None:
        """Write what was not written for 30 s (or, at the end, all that was not)."""
        with self._lock:
            due = [
                entry
                for _, entry in self._entries.values()
                if not entry.is_written and (everything or now - entry.written_at >= WRITE_SECONDS)
            ]
        for entry in due:
            self._write(entry, now)

    def since(self, cursor: str) -> tuple[str, list[dict[str, Any]]]:
        """What changed after a cursor, oldest change first; everything after an unknown one.

        Returns:
            The cursor to ask with next time, and the entries as JSON-able objects.
        """
        boot_id, _, number = cursor.partition(".")
        is_known = boot_id == self._boot_id and number.isascii() and number.isdigit()
        after = int(number[:18]) if is_known else 0
        changed: list[_Entry] = []
        with self._lock:
            next_cursor = f"{self._boot_id}.{self._revision}"
            for revision, entry in reversed(self._entries.values()):
                if revision <= after:
                    break
                changed.append(entry)
        return next_cursor, [self._describe(entry) for entry in reversed(changed)]

    def _put(self, entry: _Entry) -> None:
        self._revision += 1
        self._entries.pop(entry.stream, None)
        self._entries[entry.stream] = (self._revision, entry)

    def _describe(self, entry: _Entry) -> dict[str, Any]:
        stream, tally = entry.stream, self._store.tally(entry.stream)
        return {
            "capture": stream.capture,
            "namespace": stream.namespace,
            "pod": {"name": entry.meta.pod, "uid": stream.pod_uid, "node": entry.meta.node},
            "report": report_value(entry.report),
            "received_at": entry.received_at,
            # The newest alone: what the controller can tell in a status is bounded.
            "files": {
                "count": tally.count,
                "bytes": tally.bytes,
                "names": self._names.newest(stream, entry.meta),
            },
            "refused": entry.refused,
        }

    def _read(self, stream: StreamKey) -> _Entry | None:
        text, meta = self._store.report(stream), self._store.meta(stream)
        if text is None or meta is None:
            return None
        stored = load_stored(text)
        if stored is None:
            _log.warning("report unreadable", extra={"stream": stream.path})
            return None
        return _Entry(
            stream,
            meta,
            stored.report,
            stored.received_at,
            written_at=stored.received_at,
            is_written=True,
        )

    def _write(self, entry: _Entry, now: float) -> None:
        text = dump_stored(StoredReport(entry.report, entry.received_at))
        try:
            self._store.write_report(entry.stream, text, entry.report.seq)
        except (StoreFull, StoreFailed) as error:
            _log.warning(
                "report not written", extra={"stream": entry.stream.path, "error": str(error)}
            )
        else:
            entry.written_at, entry.is_written = now, True


def _is_turn(before: Report, after: Report) -> bool:
    """Whether a report tells of another state than the one before."""
    return (before.state, before.reason, before.shipped) != (
        after.state,
        after.reason,
        after.shipped,
    )
