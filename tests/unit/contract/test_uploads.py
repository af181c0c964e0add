import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.orders import is_interface
from nightcap.contract.uploads import (
    BadUploadPath,
    SegmentName,
    format_boolean,
    parse_boolean,
    parse_upload_path,
    quote_interface,
    unquote_interface,
    upload_path,
)

_interfaces = (
    st.text(min_size=1, max_size=15)
    .filter(is_interface)
    .filter(lambda name: len(quote_interface(name)) <= 60)
)


@given(st.from_regex(r"\A[0-9a-f]([0-9a-f-]{0,50}[0-9a-f])?\Z"), _interfaces,
       st.integers(0, 99_999_999))  # fmt: skip
def test_a_path_is_read_back(capture, interface, seq):
    segment = SegmentName(capture, interface, seq)
    assert parse_upload_path(upload_path(segment)) == segment


@given(_interfaces)
def test_a_quoted_interface_is_one_part_of_a_path(interface):
    part = quote_interface(interface)
    assert "/" not in part
    assert part not in ("", ".", "..")
    assert unquote_interface(part) == interface


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/captures/ab/eth0",
        "/v1/captures/ab/eth0/1/",
        "/v1/captures/ab/eth0/-1",
        "/v1/captures/ab/eth0/123456789",
        "/v1/captures/AB/eth0/1",
        "/v1/captures/../eth0/1",
        "/v1/captures/ab/../1",
        "/v1/captures/ab/%2e%2e/1",
        "/v1/captures/ab/a%2Fb/1",
        "/v1/captures/ab/%00/1",
        "/v1/captures/ab/%ff/1",
        "/v1/captures/ab/a%20b/1",
        "/v1/captures/ab/eth0/1\n",
        "/v1/captures/ab/eth0/\uff11",
        "/v2/captures/ab/eth0/1",
        "/v1/captures/ab/%65th0/1",
        "/v1/captures/ab//1",
    ],
)
def test_any_other_path_is_refused(path):
    with pytest.raises(BadUploadPath):
        parse_upload_path(path)


@given(st.text(max_size=80))
def test_whatever_text_nothing_but_a_bad_path_comes_of_it(text):
    for path in (text, f"/v1/captures/ab/{text}/1"):
        try:
            segment = parse_upload_path(path)
        except BadUploadPath:
            continue
        assert is_interface(segment.interface)


@pytest.mark.parametrize(("text", "value"), [("?1", True), ("?0", False), (None, False)])
def test_booleans_are_those_of_rfc_8941(text, value):
    assert parse_boolean(text) is value
    if text:
        assert format_boolean(value) == text


@pytest.mark.parametrize("text", ["", "1", "true", "?2", "?1 "])
def test_any_other_boolean_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        parse_boolean(text)
