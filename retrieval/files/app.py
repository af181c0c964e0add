"""The application that people speak to: who they are, what they may, then the bytes.

Every path but the two for health needs a Kubernetes token, also one that leads nowhere;
what exists is told only to those who may have it (`retrieval.access`).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Protocol

import flask
from werkzeug.exceptions import HTTPException, NotFound, RequestedRangeNotSatisfiable

from nightcap.contract import keys
from nightcap.contract.captures import BadCapture, PacketCapture
from nightcap.contract.segments import BadName, StreamKey, parse_file_name
from nightcap.kube.errors import ApiError
from nightcap.kube.reviews import Identity
from retrieval import access, metrics
from retrieval.access import CaptureRef, Question, Verb, Verdict
from retrieval.audit import Access, AuditedBody, Auditor, Ended
from retrieval.files.bodies import Archive, Body, Checksums, part_of_file
from retrieval.files.catalog import COUNT_SECONDS, CaptureFile, Catalog
from retrieval.files.missing import missing
from retrieval.files.streams import LiveSeats, StandingYes, Streams
from retrieval.files.wanted import BadQuery
from retrieval.limits import Rate, Seats, Strangers, TooMuch
from retrieval.store.base import ReadableStore, StoreFailed, StoreFull
from retrieval.stored_reports import load_stored

_OPEN_PATHS: Final = frozenset({"/health", "/healthz", "/readyz"})
_ZIP: Final = "files.zip"
_MERGED: Final = "merged.pcapng"
_LIVE: Final = "live.pcapng"

PERSON_REQUESTS_PER_SECOND: Final = 100
PERSON_ANSWERS: Final = 20
"""Answers with data at once, of one person: a third of the threads, and sixteen Wiresharks."""

_log = logging.getLogger(__name__)


Groups = tuple[str, ...]
"""The API groups of which a path's capture may be."""


class Judge(Protocol):
    """What the application asks the API server; see `retrieval.files.people.People`."""

    def identify(self, token: str) -> Identity | None: ...

    def may(self, identity: Identity, asked: Question) -> bool: ...

    def find(self, capture: CaptureRef) -> PacketCapture | None: ...

    def services(self, namespace: str) -> tuple[tuple[str, str], ...]: ...


@dataclass(frozen=True, slots=True)
class Granted:
    """A request that may be answered."""

    identity: Identity
    ref: CaptureRef
    capture: PacketCapture
    verb: Verb

    @property
    def uid(self) -> str:
        return self.capture.metadata.uid


def create_app(
    store: ReadableStore, judge: Judge, auditor: Auditor, is_ready: Callable[[], bool]
) -> flask.Flask:
    """Make the application; it starts nothing and asks nobody yet."""
    app = flask.Flask("retrieval", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # Flask would answer them without our checks
    app.url_map.merge_slashes = False  # a redirect would be an answer to a stranger
    handlers = _Handlers(store, judge, auditor, is_ready)

    @app.get("/health")  # Calico's
    @app.get("/healthz")
    def healthz() -> flask.Response:
        return _text("ok")

    @app.get("/readyz")
    def readyz() -> flask.Response:
        if is_ready():
            return _text("ok")
        return _text("not ready: waiting for certificates", 503)

    @app.before_request
    def authenticate() -> flask.Response | None:
        return None if flask.request.path in _OPEN_PATHS else handlers.authenticate()

    base = "/v1/namespaces/<namespace>/packetcaptures/<name>"
    ours = {"groups": (keys.GROUP,)}
    either = {"groups": access.EITHER_GROUP}
    app.get(f"{base}/files", defaults=ours)(handlers.list_files)
    app.get(f"{base}/files/<file>", defaults=ours)(handlers.one_file)
    app.get(f"{base}/{_ZIP}", defaults=ours)(handlers.all_files)
    app.get(f"{base}/{_MERGED}", defaults=ours)(handlers.merged)
    app.get(f"{base}/{_LIVE}", defaults=ours)(handlers.live)
    for prefix in ("", "/packet-capture"):
        # Calico's documents name DELETE in several forms; all of them are taken.
        download = f"{prefix}/download/<namespace>/<name>/{_ZIP}"
        app.get(download, endpoint=f"get{prefix}", defaults=either)(handlers.all_files)
        for number, path in enumerate(
            (
                download,
                f"{prefix}/files/<namespace>/<name>",
                f"{prefix}/files/<namespace>/<name>/{_ZIP}",
            )
        ):
            endpoint = f"delete{number}{prefix}"
            app.delete(path, endpoint=endpoint, defaults=either)(handlers.delete_files)

    app.register_error_handler(Exception, _on_error)
    app.after_request(_finish)
    return app


class _Handlers:
    """One method for each route."""

    def __init__(
        self, store: ReadableStore, judge: Judge, auditor: Auditor, is_ready: Callable[[], bool]
    ) -> None:
        self._store = store
        self._judge = judge
        self._auditor = auditor
        self._catalog = Catalog(store)
        self._checksums = Checksums()
        self._strangers = Strangers()
        self._rate = Rate(PERSON_REQUESTS_PER_SECOND, 4 * PERSON_REQUESTS_PER_SECOND)
        self._seats = Seats(PERSON_ANSWERS)
        self._streams = Streams(store, self._catalog, judge)
        self._live_seats = LiveSeats()
        self._is_ready = is_ready

    def authenticate(self) -> flask.Response | None:
        headers = flask.request.headers
        token = access.bearer_token(
            headers.get("Authorization"), headers.get("Nightcap-Authorization")
        )
        address, now = _address(), time.monotonic()
        if token:
            self._strangers.check(address, token, now)
        identity = self._judge.identify(token) if token else None
        if token:
            self._strangers.note(address, token, now, is_good=identity is not None)
        if identity is None:
            what = "is not valid here" if token else "is missing"
            answer = _text(f"the bearer token of a Kubernetes user {what}", 401)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        self._rate.take(identity.username, now)
        flask.g.identity = identity
        flask.g.token = token
        return None

    def list_files(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._authorize(namespace, name, groups, Verb.GET)
        files = self._catalog.files(namespace, granted.uid, count_seconds=COUNT_SECONDS)
        dropped = {stream: self._dropped(stream) for stream in {f.key.stream for f in files}}
        return flask.jsonify(
            {
                "files": [_describe(file, dropped[file.key.stream]) for file in files],
                "missing": missing(self._store, namespace, granted.uid),
            }
        )

    def one_file(self, namespace: str, name: str, file: str, groups: Groups) -> flask.Response:
        granted = self._authorize(namespace, name, groups, Verb.GET)
        parse_file_name(file)
        found = next(
            (f for f in self._catalog.files(namespace, granted.uid) if f.name == file), None
        )
        if found is None:
            raise NotFound(f"{namespace}/{name} has no file {file}")
        etag = etag_of(found)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{etag}"',
            "Content-Type": "application/vnd.tcpdump.pcap",
            "Content-Disposition": f'attachment; filename="{file}"',
        }
        request = flask.request
        if request.if_none_match.contains(etag):
            return flask.Response(status=304, headers={"ETag": headers["ETag"]})
        begin, end, status = _range(found.size, headers["ETag"])
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{found.size}"
        headers["Content-Length"] = str(end - begin)
        if request.method == "HEAD":
            return flask.Response(status=status, headers=headers)
        try:
            body = part_of_file(self._store, found, begin, end)
        except FileNotFoundError as error:
            raise NotFound(f"{namespace}/{name} has no file {file} any more") from error
        return self._send(granted, file, body, status, headers)

    def all_files(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._authorize(namespace, name, groups, Verb.GET)
        files = self._catalog.files(namespace, granted.uid)
        if not files:
            return flask.Response(status=204)
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f"attachment; filename={_ZIP}",
        }
        with ExitStack() as stack:
            archive = Archive(self._store, files, self._checksums)
            stack.callback(archive.close)
            begin, end, status = 0, archive.length, 200
            if archive.etag is not None:
                # Of files that grow there is no second part: the next archive is another one.
                headers |= {"Accept-Ranges": "bytes", "ETag": f'"{archive.etag}"'}
                if flask.request.if_none_match.contains(archive.etag):
                    return flask.Response(status=304, headers={"ETag": headers["ETag"]})
                begin, end, status = _range(archive.length, headers["ETag"])
            if status == 206:
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{archive.length}"
            headers["Content-Length"] = str(end - begin)
            if flask.request.method == "HEAD":
                return flask.Response(status=status, headers=headers)
            stack.pop_all()
            return self._send(granted, _ZIP, archive.body(begin, end), status, headers)

    def merged(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._authorize(namespace, name, groups, Verb.GET)
        wanted = self._streams.wanted()
        headers = _pcapng_headers(f"{name}.pcapng")
        with ExitStack() as stack:
            filters = self._streams.filters(wanted, namespace, granted.uid, stack)
            pieces = self._streams.merged(granted.ref, granted.uid, wanted, filters, stack)
            if pieces is None:
                return flask.Response(status=204)
            if flask.request.method == "HEAD":
                return flask.Response(status=200, headers=headers)
            return self._send_pieces(granted, _MERGED, pieces, stack.pop_all(), headers)

    def live(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._authorize(namespace, name, groups, Verb.GET)
        wanted = self._streams.wanted()
        # No proxy on the way is to wait for more.
        headers = _pcapng_headers(f"{name}-live.pcapng") | {"X-Accel-Buffering": "no"}
        with ExitStack() as stack:
            filters = self._streams.filters(wanted, namespace, granted.uid, stack)
            if flask.request.method == "HEAD":
                return flask.Response(status=200, headers=headers)
            self._live_seats.take(stack)
            asked = access.question(granted.ref, Verb.GET)
            standing = StandingYes(self._judge, flask.g.token, asked, granted.ref, granted.capture)
            pieces = self._streams.live(
                standing,
                granted.ref,
                granted.uid,
                wanted,
                filters,
                lambda: not self._is_ready(),
                stack,
            )
            return self._send_pieces(granted, _LIVE, pieces, stack.pop_all(), headers)

    def delete_files(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._authorize(namespace, name, groups, Verb.DELETE)
        fault = access.deletion_fault(_phase(granted.capture))
        if fault is not None:
            return _text(fault, 403)
        count = size = 0
        ended = Ended.FAILED
        try:
            for stream in self._store.streams(namespace, granted.uid):
                for segment in self._store.segments(stream):
                    self._store.delete_segment(segment.key)
                    count, size = count + 1, size + segment.size
            ended = Ended.COMPLETE
        finally:
            status = 200 if ended is Ended.COMPLETE else 500
            record = _access_of(granted, _ZIP)
            self._auditor.record(record, status=status, sent_bytes=size, ended=ended)
        return _text(f"{count} files deleted")

    def _authorize(self, namespace: str, name: str, groups: Groups, verb: Verb) -> Granted:
        """Let those pass who may, to what exists.

        A group is looked at only with the right to it: else the answer would tell what is there.
        """
        identity: Identity = flask.g.identity
        refs = [access.parse_capture_ref(namespace, name, group) for group in groups]
        questions = [access.question(ref, verb) for ref in refs]
        # All are asked, also after a yes: the time an answer takes tells nothing either.
        answers = [self._judge.may(identity, asked) for asked in questions]
        allowed = [ref for ref, answer in zip(refs, answers, strict=True) if answer]
        found = ((ref, self._judge.find(ref)) for ref in allowed)
        ref, capture = next((pair for pair in found if pair[1] is not None), (refs[0], None))
        verdict = access.verdict(
            is_known=True, is_allowed=bool(allowed), exists=capture is not None
        )
        if verdict is Verdict.FORBIDDEN:
            flask.abort(_text(access.forbidden_sentence(identity.username, questions), 403))
        if capture is None:
            raise NotFound(f"there is no capture {name} in namespace {namespace}")
        return Granted(identity, ref, capture, verb)

    def _send(
        self, granted: Granted, what: str, body: Body, status: int, headers: dict[str, str]
    ) -> flask.Response:
        self._sit_down(granted, body.stack)
        audited = AuditedBody(
            body.chunks, body.stack.close, self._auditor, _access_of(granted, what), status
        )
        return flask.Response(audited, status=status, headers=headers, direct_passthrough=True)

    def _send_pieces(
        self,
        granted: Granted,
        what: str,
        pieces: Iterator[bytes],
        stack: ExitStack,
        headers: dict[str, str],
    ) -> flask.Response:
        """Send what has no known length."""
        self._sit_down(granted, stack)
        query = flask.request.query_string.decode("ascii", "replace")[:2000]
        named = f"{what}?{query}" if query else what
        audited = AuditedBody(pieces, stack.close, self._auditor, _access_of(granted, named), 200)
        return flask.Response(audited, headers=headers, direct_passthrough=True)

    def _sit_down(self, granted: Granted, stack: ExitStack) -> None:
        """Take one of a person's seats until the stack is closed."""
        name = granted.identity.username
        try:
            self._seats.take(name)
        except TooMuch:
            stack.close()
            raise
        stack.callback(self._seats.leave, name)

    def _dropped(self, stream: StreamKey) -> int | None:
        """Packets that the kernel dropped in this pod; it does not say of which file."""
        stored = load_stored(self._store.report(stream))
        return None if stored is None else stored.report.dropped


def etag_of(file: CaptureFile) -> str:
    """Segments are only ever appended to: path and size name the very bytes."""
    return f"{sha256(file.key.path.encode()).hexdigest()[:16]}-{file.size}"


def _range(size: int, etag: str) -> tuple[int, int, int]:
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


def _describe(file: CaptureFile, dropped: int | None) -> dict[str, Any]:
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


def _pcapng_headers(name: str) -> dict[str, str]:
    return {
        "Content-Type": "application/x-pcapng",
        "Content-Disposition": f'attachment; filename="{name}"',
    }


def _time(ns: int) -> str:
    text = datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns % 10**9 // 1000:06d}Z"


def _phase(capture: PacketCapture) -> str | None:
    phase = (capture.status or {}).get("phase")
    return phase if isinstance(phase, str) else None


def _access_of(granted: Granted, what: str) -> Access:
    request = flask.request
    return Access(
        action=granted.verb.value,
        user=granted.identity.username,
        groups=granted.identity.groups,
        namespace=granted.ref.namespace,
        capture=granted.ref.name,
        capture_uid=granted.uid,
        what=what,
        address=_address(),
        forwarded_for=request.headers.get("X-Forwarded-For", "")[:200],
    )


def _address() -> str:
    """Whom the connection is with; IPv4 is not dressed up as IPv6.

    Behind the API server's service proxy that is the API server, and who asked it is only
    what it claims in X-Forwarded-For: both are recorded, and limits go by who somebody is.
    """
    return (flask.request.remote_addr or "").removeprefix("::ffff:")


def _text(sentence: str, status: int = 200) -> flask.Response:
    return flask.Response(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")


def _on_error(error: Exception) -> flask.Response:
    """Every error is a sentence; one that nobody expected is in the log."""
    if isinstance(error, HTTPException):
        if isinstance(error.response, flask.Response):
            return error.response
        answer = _text(error.description or error.name, error.code or 500)
        for header, value in error.get_headers():
            if header not in ("Content-Type", "Content-Length"):
                answer.headers[header] = value
        return answer
    if isinstance(error, BadQuery):
        return _text(str(error), 400)
    if isinstance(error, BadName):
        return _text(f"request URL is malformed: {error}", 400)
    if isinstance(error, ApiError | BadCapture):
        _log.warning("cannot answer now", extra={"error": str(error)})
        answer = _text("the Kubernetes API cannot be asked now; try again", 503)
        answer.headers["Retry-After"] = "2"
        return answer
    if isinstance(error, TooMuch):
        answer = _text(str(error), 429)
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
        return answer
    if isinstance(error, StoreFailed | StoreFull):
        _log.warning("cannot answer now", extra={"error": str(error)})
        answer = _text(f"{error}; try again", 503)
        answer.headers["Retry-After"] = "5"
        return answer
    _log.error("request failed", exc_info=error)
    return _text("retrieval failed; see its log", 500)


def _finish(answer: flask.Response) -> flask.Response:
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "private, no-store"
    method = flask.request.method
    label = method if method in ("GET", "HEAD", "DELETE") else "other"
    metrics.ANSWERS.labels(label, str(answer.status_code)).inc()
    return answer
