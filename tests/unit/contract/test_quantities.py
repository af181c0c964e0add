import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.quantities import (
    MAX_BYTES,
    MAX_SECONDS,
    BadQuantity,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("1d", 86400),
        ("366d", MAX_SECONDS),
        ("1m1m", 120),
    ],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "-5m", "+5m", "5 m", "5m ", "m", "1w", "1H", "0s", "0.0001h-", "367d", "1e3s",
     "\uff19s", "1.s", ".5s", "9" * 41 + "s", "1s\n", "inf", "nan"],
)  # fmt: skip
def test_a_bad_duration_is_quoted_with_the_rule(text):
    with pytest.raises(BadQuantity) as caught:
        parse_duration(text)
    assert repr(text[:40]) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("10Mi", 10 * 2**20),
        ("1G", 10**9),
        ("65536", 65536),
        (65536, 65536),
        ("0", 0),
        ("1.5Ki", 1536),
        ("1024Ti", MAX_BYTES),
    ],
)
def test_a_size_is_a_number_with_an_optional_unit(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value", ["", "-1", -1, "1 Mi", "1mi", "1KiB", "1025Ti", "\uff11", "1e6", "1.Mi", "Mi", "1Mi\n"]
)
def test_a_bad_size_is_quoted_with_the_rule(value):
    with pytest.raises(BadQuantity) as caught:
        parse_size(value)
    assert repr(str(value)[:40]) in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_duration_within_bounds_or_refused(text):
    try:
        seconds = parse_duration(text)
    except BadQuantity:
        return
    assert 0 < seconds <= MAX_SECONDS


@given(st.text(alphabet="0123456789.kMGTi-", max_size=45))
def test_any_text_is_a_size_within_bounds_or_refused(text):
    try:
        size = parse_size(text)
    except BadQuantity:
        return
    assert 0 <= size <= MAX_BYTES
