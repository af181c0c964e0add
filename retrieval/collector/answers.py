"""What the collector reads of a request's body, and what its answers look like."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from certs.deadlines import BODY_READ, BODY_UNWANTED
from nightcap.kube.errors import ApiError
from retrieval.collector.uploads import BadUpload, Upload
from retrieval.store.base import OffsetConflict

RETRY_AFTER_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; a refusal's body is a sentence."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


def read_body(environ: dict[str, Any], length: int) -> bytes:
    """The whole body, or nothing: what a cut connection brought would end inside a record."""
    if not length:
        return b""
    body: bytes = environ["wsgi.input"].read(length)
    environ.get(BODY_READ, lambda: None)()  # nothing more is to come: its deadline is off
    if len(body) != length:
        raise BadUpload(
            HTTPStatus.BAD_REQUEST, f"the body was cut: {len(body)} of {length} bytes came"
        )
    return body


def leave_body(environ: dict[str, Any]) -> None:
    """Read no body of a refused request: whoever sends it slowly would hold a thread for it."""
    environ.get(BODY_UNWANTED, lambda: None)()


def raw_target(environ: dict[str, Any]) -> str:
    """The request's target still percent-encoded; servers name it differently."""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    return str(target)


def conflict_sentence(upload: Upload, conflict: OffsetConflict) -> str:
    """Why an append does not fit."""
    known = conflict.segment
    if known.complete:
        return f"the segment is complete with {known.size} bytes"
    return f"the segment has {known.size} bytes; this body starts at {upload.offset}"


def refuse(status: HTTPStatus, sentence: str, headers: dict[str, str] | None = None) -> Answer:
    """No, and why."""
    return Answer(status, headers or {}, f"{sentence}\n".encode())


def later(
    sentence: str,
    status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE,
    seconds: int = RETRY_AFTER_SECONDS,
) -> Answer:
    """Not now, and when to come again."""
    return refuse(status, sentence, {"Retry-After": str(seconds)})


def sentence_of(error: Exception) -> str:
    """What may be said about an error of the API server or of a capture."""
    if isinstance(error, ApiError):
        # The server's own words may name what the asker may not know of.
        return "the Kubernetes API cannot be asked now; try again"
    return str(error)
