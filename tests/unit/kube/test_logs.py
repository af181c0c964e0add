import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightcap.kube.logs import setup_logging


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_record_is_one_json_object_with_its_facts() -> None:
    stream = io.StringIO()
    log = setup_logging("webhook", stream=stream)
    log.info("pod admitted", extra={"pod": "web-1", "count": 2, "where": Path("/x")})
    (line,) = written(stream)
    at = line.pop("at")
    assert isinstance(at, str)
    assert at.endswith("Z")
    assert len(at) == len("2026-11-22T02:00:00.000Z")
    assert line == {
        "level": "info",
        "program": "webhook",
        "event": "pod admitted",
        "pod": "web-1",
        "count": 2,
        "where": "/x",
    }


def test_line_breaks_of_others_do_not_break_lines() -> None:
    stream = io.StringIO()
    setup_logging("webhook", stream=stream).warning("odd name", extra={"pod": 'a\n{"level":"x"}'})
    (line,) = written(stream)
    assert line["pod"] == 'a\n{"level":"x"}'


def test_facts_cannot_replace_the_fields_of_the_line() -> None:
    stream = io.StringIO()
    setup_logging("webhook", stream=stream).info("real", extra={"event": "forged", "at": 0})
    (line,) = written(stream)
    assert line["event"] == "real"
    assert line["event_"] == "forged"


def test_exception_is_told_with_its_traceback() -> None:
    stream = io.StringIO()
    log = setup_logging("webhook", stream=stream)
    try:
        int("what happened")
    except ValueError:
        log.exception("not handled")
    (line,) = written(stream)
    assert str(line["error"]).startswith('ValueError("invalid literal')
    assert "test_logs.py" in str(line["traceback"])


def test_other_libraries_loggers_write_the_same_lines() -> None:
    stream = io.StringIO()
    setup_logging("webhook", stream=stream)
    logging.getLogger("gunicorn.error").warning("Worker %s", "gone")
    assert written(stream)[0]["event"] == "Worker gone"
