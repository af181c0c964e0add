"""The record of who was given what: one line of JSON on standard output per answer.

The same line can go to an object store as an object of its own, to which we need the right to
put and no other: see `retrieval.store.opening.open_record`.

Bytes are what was really sent: a chunk counts when the server asked for the next one.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TextIO

import msgspec

from retrieval import metrics
from retrieval.store.base import StoreFailed, StoreFull

LOGGER = "audit"

_log = logging.getLogger(__name__)


class Ended(StrEnum):
    """How an answer ended."""

    COMPLETE = "complete"
    CUT = "cut"
    """The other side went away."""
    FAILED = "failed"
    """We could not go on."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who asked for what, from where.

    Attributes:
        action: `get` or `delete`.
        capture: Name of the capture, and `capture_uid` which object that was.
        what: A file's name, or `files.zip`.
        address: Of the connection; `forwarded_for` is what a proxy claims.
    """

    action: str
    user: str
    groups: tuple[str, ...]
    namespace: str
    capture: str
    capture_uid: str
    what: str
    address: str
    forwarded_for: str = ""


class Auditor:
    """Writes audit records."""

    def __init__(
        self,
        write: Callable[[str], None] | None = None,
        keep: Callable[[str], None] | None = None,
    ) -> None:
        """Write to the logger `audit`, or to what is given instead.

        Args:
            write: Takes one line.
            keep: Takes the same line, to a place that we cannot change afterwards; it raises
                StoreFailed or StoreFull, and the line in the log stands all the same.
        """
        self._write = write or logging.getLogger(LOGGER).info
        self._keep = keep

    def record(self, access: Access, *, status: int, sent_bytes: int, ended: Ended) -> None:
        """Write one record now."""
        fields = {
            "at": round(time.time(), 3),
            **asdict(access),
            "status": status,
            "bytes": sent_bytes,
            "ended": ended.value,
        }
        line = msgspec.json.encode(fields).decode()
        self._write(line)
        if self._keep is not None:
            try:
                self._keep(line)
            except (StoreFailed, StoreFull) as error:
                metrics.AUDIT_FAILURES.inc()
                _log.error("audit record not kept", extra={"error": str(error)})
        metrics.AUDIT_RECORDS.labels(access.action).inc()


class AuditedBody:
    """An answer's body that writes its audit record when it ends, however it ends."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        close: Callable[[], None],
        auditor: Auditor,
        access: Access,
        status: int,
    ) -> None:
        self._chunks = chunks
        self._close = close
        self._auditor = auditor
        self._access = access
        self._status = status
        self._sent_bytes = 0
        self._under_way = 0
        self._ended: Ended | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._sent_bytes += self._under_way
        self._under_way = 0
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._finish(Ended.COMPLETE)
            raise
        except Exception:
            self._finish(Ended.FAILED)
            raise
        self._under_way = len(chunk)
        return chunk

    def close(self) -> None:
        """Called by the server when the answer is over."""
        self._finish(Ended.CUT)

    def _finish(self, ended: Ended) -> None:
        if self._ended is not None:
            return
        self._ended = ended
        self._close()
        metrics.HANDED_OUT_BYTES.inc(self._sent_bytes)
        self._auditor.record(
            self._access, status=self._status, sent_bytes=self._sent_bytes, ended=ended
        )


def setup_audit(stream: TextIO | None = None) -> None:
    """Send the logger `audit` to standard output and nowhere else, one record a line."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
