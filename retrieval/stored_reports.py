"""`report.json`: a stream's latest report as it lies in the store."""

import msgspec

from nightcap.contract.reports import BadReport, Report, dump_report, parse_report


class StoredReport(msgspec.Struct, frozen=True):
    """A report and when it came, seconds since the epoch by the collector's clock."""

    report: Report
    received_at: float


class _File(msgspec.Struct):
    received_at: float
    report: msgspec.Raw


def dump_stored(stored: StoredReport) -> bytes:
    """Write the file's content."""
    report = msgspec.Raw(dump_report(stored.report).encode())
    return msgspec.json.encode(_File(stored.received_at, report))


def load_stored(text: bytes | None) -> StoredReport | None:
    """Read the file's content; None if it is not there, or cut by a power failure.

    The sidecar's next report replaces what could not be read.
    """
    if text is None:
        return None
    try:
        file = msgspec.json.decode(text, type=_File)
        return StoredReport(parse_report(bytes(file.report).decode()), file.received_at)
    except (msgspec.DecodeError, UnicodeDecodeError, BadReport):
        return None
