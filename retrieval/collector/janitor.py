"""The collector's housekeeping: files of deleted captures go, late reports are written.

A capture's files go only after the API server, asked for it, named every capture of that
namespace and this one was not among them. When it cannot be asked nothing goes.
"""

import logging
import time
from typing import Final

from nightcap.kube.errors import ApiError
from nightcap.kube.rounds import Rounds
from retrieval import metrics, retention
from retrieval.collector.captures import Captures
from retrieval.collector.reports import ReportIndex
from retrieval.store.base import Store

ROUND_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


class Janitor:
    """A thread that tidies the store."""

    def __init__(
        self,
        store: Store,
        captures: Captures,
        reports: ReportIndex,
        limit_bytes: int = 0,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._store = store
        self._captures = captures
        self._reports = reports
        self._limit_bytes = limit_bytes
        self.is_full = False
        """All is more than the installation's limit, and nothing of it may go."""
        self._rounds = Rounds("janitor", lambda: self.tidy(time.time()), round_seconds)

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        """End after the round that is under way; unwritten reports are written."""
        self._rounds.stop(timeout=None)
        self._reports.write_due(time.time(), everything=True)

    def tidy(self, now: float) -> None:
        """One round."""
        self._remove_orphans()
        self._store.heal()
        self._reports.refresh()
        for stream in self._store.recount():
            self._reports.touch(stream)
        self._reports.write_due(now)
        self._measure(self._make_room())

    def _remove_orphans(self) -> None:
        stored = tuple(self._store.captures())
        suspects = retention.suspects(stored, self._captures.watched_uids())
        for namespace, asked in suspects.items():
            try:
                live: frozenset[str] | None = frozenset(self._captures.live(namespace))
            except ApiError as error:
                _log.warning(
                    "captures not listed, nothing removed",
                    extra={"namespace": namespace, "error": str(error)},
                )
                live = None
            for capture in sorted(retention.orphans(asked, live)):
                self._store.delete_capture(namespace, capture)
                self._reports.forget(namespace, capture)
                metrics.CAPTURES_REMOVED.inc()
                _log.info(
                    "files removed, the capture was deleted",
                    extra={"namespace": namespace, "capture": capture},
                )

    def _make_room(self) -> int:
        """Give up files of finished captures if there is too much; bytes that are left."""
        stored = [self._weigh(*each) for each in self._store.captures()]
        total = sum(each.bytes for each in stored)
        for each in retention.to_give_up(stored, self._limit_bytes):
            for stream in self._store.streams(each.namespace, each.capture):
                for segment in self._store.segments(stream):
                    self._store.delete_segment(segment.key)
                self._reports.touch(stream)
            total -= each.bytes
            metrics.CAPTURES_GIVEN_UP.inc()
            _log.warning(
                "files of a finished capture removed, the store's limit is reached",
                extra={"namespace": each.namespace, "capture": each.capture, "bytes": each.bytes},
            )
        self.is_full = bool(self._limit_bytes) and total > self._limit_bytes
        return total

    def _weigh(self, namespace: str, capture: str) -> retention.Stored:
        streams = self._store.streams(namespace, capture)
        size = sum(self._store.tally(stream).bytes for stream in streams)
        modified_at = 0.0
        if self._limit_bytes:
            times = (s.modified_at for stream in streams for s in self._store.segments(stream))
            modified_at = max(times, default=0.0)
        finished = self._captures.is_finished(capture)
        return retention.Stored(namespace, capture, size, modified_at, finished)

    def _measure(self, total: int) -> None:
        metrics.STORE_BYTES.set(total)
        free_bytes = self._store.free_bytes()
        if free_bytes is not None:
            metrics.STORE_FREE_BYTES.set(free_bytes)
