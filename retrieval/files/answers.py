"""What answers look like: their sentences, headers, ranges, and what an error becomes."""

import logging
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import flask
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable

from nightcap.contract.captures import BadCapture
from nightcap.contract.segments import BadName
from nightcap.kube.errors import ApiError
from nightcap.pcap.bounded import Undecided
from retrieval import metrics
from retrieval.files.catalog import CaptureFile
from retrieval.files.wanted import BadQuery
from retrieval.limits import TooMuch
from retrieval.store.base import StoreFailed, StoreFull

_log = logging.getLogger(__name__)


def text(sentence: str, status: int = 200) -> flask.Response:
    """A sentence, for a person to read."""
    return flask.Response(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")


def etag_of(file: CaptureFile) -> str:
    """Segments are only ever appended to: path and size name the very bytes."""
    return f"{sha256(file.key.path.encode()).hexdigest()[:16]}-{file.size}"


def asked_range(size: int, etag: str) -> tuple[int, int, int]:
    """(begin, end, status) of what is asked for; several ranges are answered with everything."""
    request = flask.request
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return 0, size, 200
    if request.headers.get("If-Range", etag) != etag:
        return 0, size, 200
    part = asked.range_for_length(size)
    if part is None:
        raise RequestedRangeNotSatisfiable(length=size)
    return part[0], part[1], 206


def pcapng_headers(name: str) -> dict[str, str]:
    """Headers of what Wireshark opens."""
    return {
        "Content-Type": "application/x-pcapng",
        "Content-Disposition": f'attachment; filename="{name}"',
    }


def description(file: CaptureFile, dropped: int | None) -> dict[str, Any]:
    """A file as the list names it.

    Args:
        file: One file.
        dropped: Packets that the kernel dropped in its pod; None if nobody knows.
    """
    return {
        "file": file.name,
        "pod": file.meta.pod,
        "node": file.meta.node,
        "interface": file.key.interface,
        "size": file.size,
        "packets": file.packets,
        "dropped": dropped,
        "first": _time(file.first_ns),
        "last": None if file.last_ns is None else _time(file.last_ns),
        "state": "complete" if file.complete else "growing",
    }


def _time(ns: int) -> str:
    text = datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns % 10**9 // 1000:06d}Z"


def on_error(error: Exception) -> flask.Response:
    """Every error is a sentence; one that nobody expected is in the log."""
    if isinstance(error, HTTPException):
        if isinstance(error.response, flask.Response):
            return error.response
        answer = text(error.description or error.name, error.code or 500)
        for header, value in error.get_headers():
            if header not in ("Content-Type", "Content-Length"):
                answer.headers[header] = value
        return answer
    if isinstance(error, BadQuery):
        return text(str(error), 400)
    if isinstance(error, BadName):
        return text(f"request URL is malformed: {error}", 400)
    if isinstance(error, ApiError | BadCapture):
        _log.warning("cannot answer now", extra={"error": str(error)})
        answer = text("the Kubernetes API cannot be asked now; try again", 503)
        answer.headers["Retry-After"] = "2"
        return answer
    if isinstance(error, Undecided):
        answer = text(f"the filter {error}, or this machine is busy; try again", 503)
        answer.headers["Retry-After"] = "2"
        return answer
    if isinstance(error, TooMuch):
        answer = text(str(error), 429)
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
        return answer
    if isinstance(error, StoreFailed | StoreFull):
        _log.warning("cannot answer now", extra={"error": str(error)})
        answer = text(f"{error}; try again", 503)
        answer.headers["Retry-After"] = "5"
        return answer
    _log.error("request failed", exc_info=error)
    return text("retrieval failed; see its log", 500)


def finish(answer: flask.Response) -> flask.Response:
    """Headers of every answer, and its place in the metrics."""
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "private, no-store"
    method = flask.request.method
    label = method if method in ("GET", "HEAD", "DELETE") else "other"
    metrics.ANSWERS.labels(label, str(answer.status_code)).inc()
    return answer
