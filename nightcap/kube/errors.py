"""What a request to the API server can fail with; each type names who can act."""

import re
from typing import Final

import msgspec

_WANT_OF_A_RIGHT: Final = re.compile(r'User "[^"]*" cannot \w+ resource "')


class ApiError(Exception):
    """An answer of the API server that is not a success, in the server's own words.

    Attributes:
        status: HTTP status; 0 when there was no answer at all.
        reason: The server's machine-readable reason, such as `AlreadyExists`.
        message: The server's sentence.
        details: The `details` of the server's Status object, or empty.
        retry_after_seconds: When the server asks to come back; None if it does not say.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after_seconds: float | None = None


class BadRequest(ApiError):
    """400: the request makes no sense to the server; a fault of ours."""


class Unauthorized(ApiError):
    """401: the server does not accept our credential."""


class Forbidden(ApiError):
    """403: a right is missing, or an admission rule refuses."""

    @property
    def lacks_right(self) -> bool:
        """Whether RBAC refused, which an API server also does while it starts."""
        return _WANT_OF_A_RIGHT.search(self.message) is not None


class NotFound(ApiError):
    """404: no such object, or no such kind."""


class Conflict(ApiError):
    """409: the object changed meanwhile, or a precondition (uid, version) does not hold."""


class AlreadyExists(Conflict):
    """409 with reason AlreadyExists: somebody made an object of that name first."""


class Gone(ApiError):
    """410: the resource version is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks a rule of its schema."""


class TooManyRequests(ApiError):
    """429: the server asks to come back later."""


class ClusterUnavailable(ApiError):
    """No answer, a timeout, or a fault of the server (5xx): nobody's error; try again."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


class _Status(msgspec.Struct, frozen=True):
    """The parts of `v1` Status that say why."""

    reason: str = ""
    message: str = ""
    code: int = 0
    details: dict[str, object] | None = None


_DECODER = msgspec.json.Decoder(_Status)


def error_of(status: int, body: bytes | msgspec.Raw, retry_after: str = "") -> ApiError:
    """The error that an answer stands for.

    Args:
        status: The HTTP status, or 0 to take the code inside the body (a watch's ERROR event).
        body: The answer; a Status object, or whatever a proxy wrote.
        retry_after: The header of that name, in whole seconds.
    """
    try:
        said = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Status(message=bytes(body[:200]).decode("utf-8", "replace"))
    status = status or said.code
    kind = _BY_STATUS.get(status, ClusterUnavailable if status >= 500 or not status else ApiError)
    if kind is Conflict and said.reason == "AlreadyExists":
        kind = AlreadyExists
    elif kind is Invalid and _is_other_object(said.details):
        # A patch that names a uid is answered so when the object was deleted and made again.
        kind = Conflict
    error = kind(status, said.reason or "Unknown", said.message or "no message", said.details)
    if retry_after.isdecimal():
        error.retry_after_seconds = float(retry_after)
    return error


def _is_other_object(details: dict[str, object] | None) -> bool:
    causes = (details or {}).get("causes")
    return isinstance(causes, list) and any(
        isinstance(cause, dict) and cause.get("field") == "metadata.uid" for cause in causes
    )


def unavailable(error: Exception) -> ClusterUnavailable:
    """The error for a request that got no answer."""
    return ClusterUnavailable(0, "NoAnswer", f"the API server did not answer: {error}")
