"""AdmissionReview v1: requests read, answers written. Pure.

`object` stays the bytes that the API server sent; `facts` looks at them.
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw, Struct

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
MAX_WARNING = 256
MAX_WARNINGS = 15
"""The API server cuts one warning at 256 characters and all together at 4096."""

_NOTHING = Raw(b"null")


class GroupVersionResource(Struct, frozen=True, gc=False):
    """`request.resource`."""

    group: str = ""
    version: str = ""
    resource: str = ""


class Request(Struct, frozen=True, rename="camel"):
    """`request` of an AdmissionReview."""

    uid: str
    operation: str = ""
    resource: GroupVersionResource = GroupVersionResource()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    object: Raw = _NOTHING
    old_object: Raw = _NOTHING

    def concerns(self, group: str, resource: str) -> bool:
        """Whether it is about such an object itself, not one of its subresources."""
        found = self.resource
        return (found.group, found.resource, self.sub_resource) == (group, resource, "")

    @property
    def creates_pod(self) -> bool:
        return self.operation == "CREATE" and self.concerns("", "pods")


class _Review(Struct, frozen=True, rename="camel"):
    request: Request
    api_version: str
    kind: str


class _Status(Struct, frozen=True, omit_defaults=True):
    code: int
    message: str
    reason: str = ""


class _Response(Struct, frozen=True, rename="camel", omit_defaults=True):
    uid: str
    allowed: bool
    patch_type: str | None = None
    patch: str | None = None
    status: _Status | None = None
    warnings: tuple[str, ...] = ()
    audit_annotations: dict[str, str] = msgspec.field(default_factory=dict)


class _Answer(Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    response: _Response


class NoReview(ValueError):
    """A body that is no AdmissionReview of a version this server speaks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered; its uid is added when it is written.

    Attributes:
        patch: JSON Patch; empty for none.
        refusal: Why it is not allowed; empty when it is.
        audit: Kept by the API server in its audit log, under the webhook's name.
    """

    patch: bytes = b""
    refusal: str = ""
    warnings: tuple[str, ...] = ()
    audit: dict[str, str] = field(default_factory=dict)


_DECODER = msgspec.json.Decoder(_Review)
_ENCODER = msgspec.json.Encoder()


def read_request(body: bytes) -> Request:
    """Read the request of an AdmissionReview.

    Raises:
        NoReview: says what is wrong with the body.
    """
    try:
        review = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoReview(f"no AdmissionReview: {str(error)[:200]}") from error
    if (review.api_version, review.kind) != (API_VERSION, KIND):
        raise NoReview(
            f"{review.api_version[:80]!r} {review.kind[:80]!r}: this server answers "
            f"{API_VERSION} {KIND}"
        )
    if not review.request.uid:
        raise NoReview("request.uid is empty")
    return review.request


def write_answer(uid: str, answer: Answer) -> bytes:
    """Write the answer to the request with this uid."""
    response = _Response(
        uid=uid,
        allowed=not answer.refusal,
        patch_type="JSONPatch" if answer.patch else None,
        patch=b64encode(answer.patch).decode() if answer.patch else None,
        status=_Status(422, answer.refusal, "Invalid") if answer.refusal else None,
        warnings=_short(answer.warnings),
        audit_annotations=answer.audit,
    )
    return _ENCODER.encode(_Answer(API_VERSION, KIND, response))


def _short(warnings: Iterable[str]) -> tuple[str, ...]:
    """Warnings as the API server passes them on: short, one line each, not too many."""
    lines = tuple(" ".join(warning.split()) for warning in warnings)
    kept = lines if len(lines) <= MAX_WARNINGS else lines[: MAX_WARNINGS - 1]
    if len(kept) < len(lines):
        kept = (*kept, f"nightcap: and {len(lines) - len(kept)} more")
    return tuple(
        line if len(line) <= MAX_WARNING else f"{line[: MAX_WARNING - 1]}…" for line in kept
    )
