"""One JSON object per line on standard error, in the form of all of Nightcap's programs."""

import json
import os
import time
from typing import Final

INFO: Final = "info"
WARNING: Final = "warning"
ERROR: Final = "error"


def log(level: str, event: str, **facts: object) -> None:
    """Write one line; the event is a constant phrase, never a token or a payload."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    line = {"at": at, "level": level, "program": "sidecar", "event": event, **facts}
    try:
        # One write a line: two threads never mix theirs.
        os.write(2, (json.dumps(line, default=str) + "\n").encode())
    except OSError:
        return  # nobody listens; the capture goes on


def info(event: str, **facts: object) -> None:
    """Log what happened as it should."""
    log(INFO, event, **facts)


def warning(event: str, **facts: object) -> None:
    """Log what somebody may want to look at."""
    log(WARNING, event, **facts)


def error(event: str, **facts: object) -> None:
    """Log what keeps a capture from working."""
    log(ERROR, event, **facts)
