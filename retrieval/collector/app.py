"""The collector's WSGI application, bare: sidecars' appends are the hot path.

PATCH | HEAD  /v1/captures/{capture uid}/{interface}/{seq}     a pod's token, audience `nightcap`
GET           /v1/reports?after=CURSOR                         a right on that path
GET           /healthz, /readyz                                nobody's token
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec

from nightcap.contract import uploads
from nightcap.contract.captures import WhenFull
from nightcap.contract.keys import TOKEN_AUDIENCE
from nightcap.contract.orders import Limit
from nightcap.contract.segments import BadName, SegmentKey
from nightcap.kube.errors import ApiError
from nightcap.kube.reviews import Identity
from nightcap.pcap.formats import HEADER_BYTES
from retrieval import metrics, retention
from retrieval.access import bearer_token
from retrieval.collector.addresses import Addresses
from retrieval.collector.admission import (
    Admission,
    Admitted,
    CaptureGone,
    CaptureUnreadable,
    NotAllowed,
)
from retrieval.collector.answers import (
    RETRY_AFTER_SECONDS,
    Answer,
    conflict_sentence,
    later,
    leave_body,
    raw_target,
    refuse,
    sentence_of,
)
from retrieval.collector.bodies import Bodies
from retrieval.collector.pacing import Pace
from retrieval.collector.reports import ReportIndex
from retrieval.collector.tokens import SidecarTokens
from retrieval.collector.uploads import BadUpload, Method, Upload, link_type, parse_upload
from retrieval.limits import Rate, Seats, Strangers, TooMuch
from retrieval.retention import Room
from retrieval.store.base import Bytes, OffsetConflict, Store, StoreFailed, StoreFull, StreamMeta

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

DURABLE_SECONDS: Final = 2.0
"""How long the answer to a segment's end waits for the disk; then it says that less is durable."""
MAX_WAITING: Final = 16
"""So many answers at once: the others are given at once, and their sidecars ask again."""
ENDED: Final = 0
"""`Nightcap-Until` of a capture that has ended: the past by every clock, however wrong."""
REPORTS_PATH: Final = "/v1/reports"
POD_REQUESTS_PER_SECOND: Final = 200
"""Of one pod; with full bodies more than a network card carries."""
POD_APPENDS: Final = 8
"""Bodies of one pod that are under way at once; a sidecar sends one at a time, and after a cut
connection the next while we still wait for the last."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parties:
    """Whom the application asks; functions, so that each is what it is for and no more.

    Attributes:
        person: Whose token it is, of the API server's own audience.
        may_read_reports: Whether that one may `get` the path of the reports.
        is_ready: Whether all that is needed has been started.
        is_full: Whether the installation's limit is reached by captures that run.
    """

    person: Callable[[str], Identity | None]
    may_read_reports: Callable[[Identity], bool]
    is_ready: Callable[[], bool]
    is_full: Callable[[], bool] = lambda: False


class CollectorApp:
    """Takes segments and reports."""

    def __init__(
        self,
        store: Store,
        tokens: SidecarTokens,
        admission: Admission,
        reports: ReportIndex,
        parties: Parties,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._admission = admission
        self._reports = reports
        self._parties = parties
        self._addresses = Addresses(store, admission)
        self._strangers = Strangers()
        self._rate = Rate(POD_REQUESTS_PER_SECOND, 2 * POD_REQUESTS_PER_SECOND)
        self._seats = Seats(POD_APPENDS)
        self._bodies = Bodies()
        self._pace = Pace(store.pace_seconds)
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        answer = self._answer(method, environ)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            leave_body(environ)
        # An unknown method would make a label of its own for whoever sends one.
        label = method if method in ("PATCH", "HEAD", "GET") else "other"
        metrics.UPLOADS.labels(label, str(int(answer.status))).inc()
        headers = [("X-Content-Type-Options", "nosniff"), *answer.headers.items()]
        if answer.status != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Type", answer.content_type))
            headers.append(("Content-Length", str(len(answer.body))))
        start_response(f"{int(answer.status)} {answer.status.phrase}", headers)
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, method: str, environ: dict[str, Any]) -> Answer:
        try:
            return self._route(method, environ)
        except BadUpload as error:
            return refuse(error.status, str(error))
        except BadName as error:
            return refuse(HTTPStatus.BAD_REQUEST, str(error))
        except NotAllowed as error:
            return refuse(HTTPStatus.FORBIDDEN, str(error))
        except CaptureGone as error:
            return refuse(HTTPStatus.GONE, str(error))
        except StoreFull as error:
            return refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        except TooMuch as error:
            return self._later(str(error), HTTPStatus.TOO_MANY_REQUESTS, error.retry_after_seconds)
        except (ApiError, CaptureUnreadable) as error:
            _log.warning("cannot answer now", extra={"error": str(error)})
            return self._later(sentence_of(error))
        except StoreFailed as error:
            _log.warning("store failed", extra={"error": str(error)})
            # Its sidecar keeps its ring; what the log names (where objects lie) is not for it.
            return self._later("the store cannot keep it now; try again")
        except Exception:  # noqa: BLE001 - one bad request must not end the others
            _log.exception("request failed")
            return refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the collector failed; see its log")

    def _later(
        self,
        sentence: str,
        status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE,
        seconds: int = RETRY_AFTER_SECONDS,
    ) -> Answer:
        answer = later(sentence, status, seconds)
        # What a sidecar goes by: all that were refused together come back no sooner, and spread.
        answer.headers[uploads.PACE] = f"{max(seconds, self._pace.seconds):.3g}"
        return answer

    def _route(self, method: str, environ: dict[str, Any]) -> Answer:
        path, _, query = raw_target(environ).partition("?")
        if path == "/healthz":
            return Answer(HTTPStatus.OK, body=b"ok\n")
        if path == "/readyz":
            if self._parties.is_ready():
                return Answer(HTTPStatus.OK, body=b"ok\n")
            lacking = "certificates or the API server"
            if self._store.fault() is not None:
                lacking = "the store, see the log"
            return later(f"not ready: waiting for {lacking}")
        token = bearer_token(environ.get("HTTP_AUTHORIZATION"), None)
        address, now = str(environ.get("REMOTE_ADDR", "")), time.monotonic()
        if token:
            self._strangers.check(address, token, now)
        if path == REPORTS_PATH and method == "GET":
            return self._read_reports(token, query)
        identity = self._tokens.identity(token, time.time()) if token else None
        if token:
            self._strangers.note(address, token, now, is_good=identity is not None)
        if identity is None:
            return refuse(
                HTTPStatus.UNAUTHORIZED,
                f"needs the token of a pod with audience {TOKEN_AUDIENCE!r}",
            )
        self._rate.take(identity.pod_uid or identity.username, now)
        upload = parse_upload(method, path, environ)
        admitted = self._admission.admit(identity, upload.segment.capture)
        key = SegmentKey(admitted.stream, upload.segment.interface, upload.segment.seq)
        if upload.method is Method.HEAD:
            return self._look(key, admitted)
        # Before the body is read: whoever sends many slowly holds no more threads than these.
        with self._seats.taken(key.stream.pod_uid):
            return self._append(upload, key, admitted, environ)

    def _look(self, key: SegmentKey, admitted: Admitted) -> Answer:
        state = self._store.segment(key)
        durable = self._durable(key, state.size, ended=state.complete)
        headers = self._headers(state.size, durable, admitted, self._room(admitted, 0))
        headers[uploads.COMPLETE] = uploads.format_boolean(state.complete)
        return Answer(HTTPStatus.NO_CONTENT, headers)

    def _append(
        self, upload: Upload, key: SegmentKey, admitted: Admitted, environ: dict[str, Any]
    ) -> Answer:
        try:
            with self._bodies.read(environ, upload.length) as body:
                return self._keep(upload, key, admitted, body)
        except StoreFull as error:
            # Also when not even the stream could be begun: the capture is to say why nothing comes.
            self._take_report(upload, admitted)
            self._reports.refused(admitted.stream, str(error))
            raise

    def _take_report(self, upload: Upload, admitted: Admitted) -> None:
        if upload.report is not None:
            self._reports.accept(
                admitted.stream, lambda: self._meta(admitted), upload.report, time.time()
            )

    def _keep(self, upload: Upload, key: SegmentKey, admitted: Admitted, body: Bytes) -> Answer:
        self._begin(admitted)
        self._take_report(upload, admitted)
        if body and upload.offset == 0:
            self._check_start(key, body)
        if body and self._parties.is_full():
            raise StoreFull("the installation's limit is reached (NIGHTCAP_STORE_LIMIT)")
        room = self._room(admitted, len(body))
        if room is Room.EXCEEDED:
            sentence = "the capture's limits.maxSize is exceeded in this pod"
            return refuse(HTTPStatus.INSUFFICIENT_STORAGE, sentence, _until(admitted, room))
        try:
            state = self._store.append(key, upload.offset, body, complete=upload.complete)
        except OffsetConflict as conflict:
            known = conflict.segment
            headers = self._headers(known.size, known.durable, admitted, room)
            headers[uploads.COMPLETE] = uploads.format_boolean(known.complete)
            return refuse(HTTPStatus.CONFLICT, conflict_sentence(upload, conflict), headers)
        durable = self._durable(key, state.size, ended=state.complete)
        if body:
            metrics.APPENDED_BYTES.inc(len(body))
            self._drop_oldest(admitted)
            self._addresses.find(admitted.stream, time.monotonic())
            self._reports.kept(admitted.stream)
        return Answer(HTTPStatus.NO_CONTENT, self._headers(state.size, durable, admitted, room))

    def _begin(self, admitted: Admitted) -> None:
        if admitted.new is None:
            return
        stream = admitted.stream
        self._store.create_stream(stream, admitted.new)
        if not admitted.new.ips:
            self._addresses.are_missing(stream, admitted.new.pod, time.monotonic())
        _log.info(
            "stream begun",
            extra={
                "namespace": stream.namespace,
                "capture": admitted.capture.metadata.name,
                "pod": admitted.new.pod,
            },
        )

    def _meta(self, admitted: Admitted) -> StreamMeta:
        known = admitted.new or self._store.meta(admitted.stream)
        return known or StreamMeta(pod="", node="", capture=admitted.capture.metadata.name)

    def _check_start(self, key: SegmentKey, body: Bytes) -> None:
        if self._store.segment(key).size == 0:
            self._store.set_link(key, link_type(bytes(body[:HEADER_BYTES])))

    def _durable(self, key: SegmentKey, size: int, *, ended: bool) -> int:
        """How much of a segment is safe so far; of one that has ended, soon all of it.

        No thread is held for the disk while a segment grows: the next answer tells. At its end
        there is no next one, and a moment's patience saves its sidecar a question.
        """
        patient = ended and self._waiting.acquire(blocking=False)
        started = time.monotonic()
        try:
            return self._store.wait_durable(key, size, DURABLE_SECONDS if patient else 0.0)
        finally:
            if patient:
                self._waiting.release()
                metrics.DURABLE_SECONDS.observe(time.monotonic() - started)

    def _room(self, admitted: Admitted, coming_bytes: int) -> Room:
        limit, when_full = _limit(admitted)
        if not limit:
            return Room.ENOUGH
        stored = self._store.tally(admitted.stream).bytes
        return retention.room(stored, coming_bytes, limit, when_full)

    def _drop_oldest(self, admitted: Admitted) -> None:
        limit, when_full = _limit(admitted)
        if when_full is not WhenFull.DROP_OLDEST or not limit:
            return
        if self._store.tally(admitted.stream).bytes <= limit:
            return
        for segment in retention.to_drop(self._store.segments(admitted.stream), limit):
            self._store.delete_segment(segment.key)

    def _headers(self, size: int, durable: int, admitted: Admitted, room: Room) -> dict[str, str]:
        return {
            uploads.OFFSET: str(size),
            uploads.DURABLE: str(durable),
            uploads.PACE: f"{self._pace.look(time.monotonic(), time.process_time()):.3g}",
            **_until(admitted, room),
        }

    def _read_reports(self, token: str | None, query: str) -> Answer:
        identity = self._parties.person(token) if token else None
        if identity is None:
            return refuse(HTTPStatus.UNAUTHORIZED, "needs a Kubernetes token")
        if not self._parties.may_read_reports(identity):
            return refuse(
                HTTPStatus.FORBIDDEN, f"{identity.username} is not authorized to get {REPORTS_PATH}"
            )
        after = parse_qs(query).get("after", [""])[0]
        cursor, changed = self._reports.since(after)
        body = msgspec.json.encode({"cursor": cursor, "reports": changed})
        return Answer(HTTPStatus.OK, body=body, content_type="application/json")


def _limit(admitted: Admitted) -> tuple[int, WhenFull]:
    settings = admitted.settings
    if settings is None:
        return Limit().bytes, WhenFull.FINISH
    return settings.limit.bytes, settings.when_full


def _until(admitted: Admitted, room: Room) -> dict[str, str]:
    settings = admitted.settings
    if settings is None:
        return {}
    is_over = (
        settings.suspended
        or admitted.is_over
        or (room is not Room.ENOUGH and settings.when_full is WhenFull.FINISH)
    )
    return {uploads.UNTIL: str(ENDED if is_over else int(settings.ends_at))}
