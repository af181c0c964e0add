"""Requests of sidecars, read from their line and headers. Pure: no body, no clock.

Source: docs/architecture.md, "From sidecar to retrieval".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from nightcap.contract import uploads
from nightcap.contract.reports import BadReport, Report, parse_report
from nightcap.contract.uploads import BadUploadPath, SegmentName, parse_upload_path
from nightcap.pcap.formats import NotPcap, parse_header

CAPTURES_PATH: Final = "/v1/captures/"
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class Method(StrEnum):
    """What a sidecar can ask for."""

    PATCH = "PATCH"
    HEAD = "HEAD"


class BadUpload(ValueError):
    """A request that is refused for its form.

    Attributes:
        status: The HTTP status to refuse it with.
    """

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upload:
    """One request of a sidecar.

    Attributes:
        offset: Where the body starts in the segment.
        complete: The segment ends with this body.
        length: Bytes of the body; 0 of a heartbeat.
    """

    method: Method
    segment: SegmentName
    offset: int = 0
    complete: bool = False
    report: Report | None = None
    length: int = 0


def parse_upload(method: str, raw_path: str, environ: Mapping[str, Any]) -> Upload:
    """Read a request.

    Args:
        method: HTTP method.
        raw_path: Path as it was sent, still percent-encoded.
        environ: Headers in the form of WSGI.

    Raises:
        BadUpload: with the status and a sentence.
    """
    try:
        segment = parse_upload_path(raw_path)
    except BadUploadPath as error:
        is_ours = raw_path.startswith(CAPTURES_PATH)
        status = HTTPStatus.BAD_REQUEST if is_ours else HTTPStatus.NOT_FOUND
        raise BadUpload(status, str(error)) from error
    match method:
        case Method.HEAD:
            return Upload(Method.HEAD, segment)
        case Method.PATCH:
            return Upload(
                Method.PATCH,
                segment,
                offset=_offset(_header(environ, uploads.OFFSET)),
                complete=_complete(_header(environ, uploads.COMPLETE)),
                report=_report(_header(environ, uploads.REPORT)),
                length=_length(environ),
            )
        case _:
            raise BadUpload(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{method[:20]} is not PATCH and not HEAD"
            )


def link_type(first_bytes: bytes) -> int:
    """The link type in a pcap file's header.

    Raises:
        BadUpload: the bytes do not start with such a header.
    """
    try:
        return parse_header(first_bytes).linktype
    except NotPcap as error:
        raise BadUpload(
            HTTPStatus.BAD_REQUEST, f"a segment starts with a pcap header: {error}"
        ) from error


def _header(environ: Mapping[str, Any], name: str) -> str | None:
    value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
    return value if isinstance(value, str) else None


def _offset(text: str | None) -> int:
    if text is None or not _NUMBER.fullmatch(text):
        raise BadUpload(
            HTTPStatus.BAD_REQUEST,
            f"{uploads.OFFSET} is {(text or 'absent')[:40]}; must be the number of bytes before",
        )
    return int(text)


def _complete(text: str | None) -> bool:
    try:
        return uploads.parse_boolean(text)
    except ValueError as error:
        raise BadUpload(HTTPStatus.BAD_REQUEST, str(error)) from error


def _report(text: str | None) -> Report | None:
    if not text:
        return None
    try:
        return parse_report(text)
    except BadReport as error:
        raise BadUpload(HTTPStatus.BAD_REQUEST, f"{uploads.REPORT}: {error}") from error


def _length(environ: Mapping[str, Any]) -> int:
    if environ.get("HTTP_TRANSFER_ENCODING"):
        # The end of a chunked body cannot be told from a cut connection in WSGI.
        raise BadUpload(HTTPStatus.LENGTH_REQUIRED, "send Content-Length, not chunks")
    text = environ.get("CONTENT_LENGTH") or "0"
    if not _NUMBER.fullmatch(text):
        raise BadUpload(HTTPStatus.BAD_REQUEST, f"Content-Length is {text[:40]!r}")
    length = int(text)
    if length > uploads.MAX_BODY_BYTES:
        raise BadUpload(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has {length} bytes; at most {uploads.MAX_BODY_BYTES} at a time",
        )
    return length
