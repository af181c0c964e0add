"""What the collector reads of a request, and what its answers look like."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from certs.bodies import BODY
from nightcap.kube.errors import ApiError
from retrieval.collector.uploads import Upload
from retrieval.store.base import OffsetConflict

RETRY_AFTER_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; a refusal's body is a sentence."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


def leave_body(environ: dict[str, Any]) -> None:
    """Read no body of a refused request."""
    if BODY in environ:
        environ[BODY].leave()


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
