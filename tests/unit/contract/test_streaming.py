import json

import pytest

from nightcap.contract.streaming import BadStream, Stream, dump_stream, parse_stream


def test_request_reads_back_as_it_was_written() -> None:
    for stream in (Stream(60), Stream(1, "udp port 53", 96, "eth0")):
        assert parse_stream(dump_stream(stream)) == stream


def test_fields_of_later_versions_are_passed_over() -> None:
    assert parse_stream('{"v": 9, "seconds": 5, "colour": "red"}') == Stream(5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"seconds": 0}, "duration of 0 s: must be 1 to 86400 s", id="no time"),
        pytest.param({"seconds": 10**9}, "must be 1 to 86400 s", id="for ever"),
        pytest.param({"snap": 0}, "snap length 0", id="no bytes"),
        pytest.param({"interface": "a/b"}, "no name of an interface", id="interface"),
        pytest.param({"filter": "host example.com"}, "not looked up", id="name in filter"),
        pytest.param({"seconds": "soon"}, "cannot be read", id="no number"),
    ],
)
def test_what_is_not_allowed_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadStream, match=words):
        parse_stream(json.dumps({"seconds": 60, **changes}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10**5])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(BadStream, match="cannot be read"):
        parse_stream(text)
