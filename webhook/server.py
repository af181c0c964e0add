"""The WSGI side: admission on a bare hot path, everything else on Flask.

Flask's routing and request objects cost more than the whole decision
(`bench/`, admission); so the paths that the API server calls do without.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from flask import Flask

from certs.plain import PlainAnswer
from webhook.facts import NotAtOnce
from webhook.handlers import Handler, Outcome, failed
from webhook.metrics import Metrics
from webhook.review import NoReview, Request, read_request, write_answer

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 3 * 2**20
"""The API server itself takes objects of up to 3 MiB."""

_JSON: Final = "application/json"
_STATUS_LINES: Final[Mapping[int, str]] = {
    200: "200 OK",
    400: "400 Bad Request",
    405: "405 Method Not Allowed",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
}

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class Refused(Exception):
    """An HTTP request that is not answered with an AdmissionReview."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class AdmissionApp:
    """Dispatches admission paths to their handlers, and the rest to another application."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        rest: WsgiApp,
        metrics: Metrics,
        at_once: Mapping[str, Handler] = MappingProxyType({}),
    ) -> None:
        """Take the paths.

        Args:
            handlers: Path → what answers it.
            rest: For every other path.
            metrics: Told of every request.
            at_once: Path → what answers it without waiting for anything, or raises `NotAtOnce`.
        """
        self._handlers = handlers
        self._at_once = at_once
        self._rest = rest
        self._metrics = metrics

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        handler = self._handlers.get(path)
        if handler is None:
            return self._rest(environ, start_response)
        try:
            answer = self._answer(path, handler, _read_body(environ))
        except (Refused, NoReview) as error:
            code = error.code if isinstance(error, Refused) else 400
            self._metrics.record_malformed(code)
            return _respond(start_response, code, "text/plain; charset=utf-8", f"{error}\n")
        answer.afterwards()
        return _respond(start_response, 200, _JSON, answer.body)

    def plain(self, path: str, body: bytes) -> PlainAnswer | None:
        """The answer to an admission request that is known at once (see `certs.plain`)."""
        handler = self._at_once.get(path)
        if handler is None:
            return None
        try:
            return self._answer(path, handler, body)
        except (NoReview, NotAtOnce):
            return None

    def _answer(self, path: str, handler: Handler, body: bytes) -> PlainAnswer:
        began_at = time.perf_counter()
        request = read_request(body)
        outcome = _handle(handler, request)
        answer = write_answer(request.uid, outcome.answer)
        seconds = time.perf_counter() - began_at
        return PlainAnswer(answer, partial(self._tell, path, request, outcome, seconds))

    def _tell(self, path: str, request: Request, outcome: Outcome, seconds: float) -> None:
        self._metrics.record(path, outcome.decision, outcome.reason, seconds)
        _log(path, request, outcome, seconds)


def _handle(handler: Handler, request: Request) -> Outcome:
    try:
        return handler(request)
    except NotAtOnce:
        raise
    except Exception as error:
        # Whatever is wrong with us, nobody's pod waits for it.
        log.exception("admission failed", extra={"uid": request.uid})
        return failed(error)


def _log(path: str, request: Request, outcome: Outcome, seconds: float) -> None:
    log.info(
        "admission",
        extra={
            "path": path,
            "uid": request.uid,
            "namespace": request.namespace,
            "object": request.name,
            "decision": outcome.decision,
            "reason": outcome.reason,
            "ms": round(seconds * 1000, 2),
            **outcome.facts,
        },
    )


def _read_body(environ: Environ) -> bytes:
    if environ.get("REQUEST_METHOD") != "POST":
        raise Refused(405, "admission requests are sent by POST")
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise Refused(415, f"content type {kind[:80]!r}: admission requests are {_JSON}")
    stream: BinaryIO = environ["wsgi.input"]
    try:
        body = stream.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise Refused(400, f"the body ended early: {error}") from error
    if len(body) > MAX_BODY_BYTES:
        raise Refused(413, f"admission requests have at most {MAX_BODY_BYTES} bytes")
    return body


def _respond(
    start_response: StartResponse, code: int, kind: str, body: bytes | str
) -> Iterable[bytes]:
    data = body.encode() if isinstance(body, str) else body
    start_response(
        _STATUS_LINES[code], [("Content-Type", kind), ("Content-Length", str(len(data)))]
    )
    return [data]


def status_app(missing: Callable[[], tuple[str, ...]]) -> Flask:
    """`/healthz` and `/readyz`.

    Args:
        missing: What is not there yet; ready when it is empty.
    """
    app = Flask("nightcap-webhook", static_folder=None)

    @app.get("/healthz")
    def healthz() -> tuple[str, int]:
        return "ok\n", 200

    @app.get("/readyz")
    def readyz() -> tuple[str, int]:
        waiting = missing()
        if waiting:
            return f"waiting for {', '.join(waiting)}\n", 503
        return "ok\n", 200

    return app
