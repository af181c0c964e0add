"""What the collector reads of a request's body, and what its answers look like."""

from dataclasses import dataclass, field
from http import HTTPStatus
from mmap import mmap
from typing import Any, Final

from certs.bodies import BODY, RequestBody
from nightcap.kube.errors import ApiError
from retrieval.collector.uploads import BadUpload, Upload
from retrieval.store.base import Bytes, OffsetConflict

RETRY_AFTER_SECONDS: Final = 2
_LARGE_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; a refusal's body is a sentence."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


def read_body(environ: dict[str, Any], length: int) -> Bytes:
    """The whole body, or nothing: what a cut connection brought would end inside a record.

    A large one has memory of its own that goes back to the system with it: of what fifty threads
    take and give back in pieces of megabytes, the allocator keeps more and more.
    """
    if not length:
        return b""
    given: RequestBody | None = environ.get(BODY)
    if given is None:  # another server
        body: Bytes = environ["wsgi.input"].read(length)
        count = len(body)
    else:
        body = memoryview(mmap(-1, length) if length >= _LARGE_BYTES else bytearray(length))
        try:
            count = given.into(body)
        except OSError as error:
            raise BadUpload(HTTPStatus.BAD_REQUEST, f"the body was cut: {error}") from error
    if count != length:
        raise BadUpload(HTTPStatus.BAD_REQUEST, f"the body was cut: {count} of {length} bytes came")
    return body


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
