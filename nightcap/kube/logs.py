"""One JSON object per line on standard error, through Python's own logging.

The event is a constant phrase, the facts are fields:
`log.info("orders written", extra={"pod": name, "captures": 2})`. Never tokens or payloads.
"""

import logging
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import msgspec

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_RESERVED = frozenset({"at", "level", "program", "event"})


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonLines(logging.Formatter):
    """Turns a record into `{"at", "level", "program", "event", ...facts}`."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        line: dict[str, object] = {
            "at": f"{_second(second)}.{int((record.created - second) * 1000):03d}Z",
            "level": record.levelname.lower(),
            "program": self._program,
            "event": record.getMessage(),
        }
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                line[f"{key}_" if key in _RESERVED else key] = value
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = repr(record.exc_info[1])
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def setup_logging(
    program: str, level: int = logging.INFO, stream: TextIO | None = None
) -> logging.Logger:
    """Send every log record of this process to one place, as JSON lines.

    Args:
        program: Which program writes, such as `webhook`.
        level: The least level that is written.
        stream: Instead of standard error, for tests.

    Returns:
        The program's logger.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(program))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Nothing that is written says which line of which thread wrote it (the howto's "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # urllib3 warns of each connection that a full pool drops: no news for anybody.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    return logging.getLogger(program)
