import pytest
from werkzeug.datastructures import MultiDict

from retrieval.files.wanted import BadQuery, Wanted, parse_wanted

NS = 1_764_555_600 * 10**9


def wanted(query: str = "") -> Wanted:
    from urllib.parse import parse_qsl

    values: MultiDict[str, str] = MultiDict(parse_qsl(query, keep_blank_values=True))
    return parse_wanted(values.to_dict(flat=False))


def test_without_a_query_everything_is_wanted() -> None:
    assert wanted() == Wanted()
    assert wanted().has_pod("web-0")
    assert wanted().has_time(0)


@pytest.mark.parametrize("query", ["pod=a&pod=b", "pod=a,b", "pod=a&pod=b,"])
def test_several_pods_may_be_named(query: str) -> None:
    assert wanted(query).pods == {"a", "b"}
    assert not wanted(query).has_pod("c")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1764555600", NS),
        ("1764555600.5", NS + 5 * 10**8),
        ("1764555600.123456789", NS + 123_456_789),
        ("2025-12-01T02:20:00Z", NS),
        ("2025-12-01T02:20:00.000000001z", NS + 1),
        ("2025-12-01T03:20:00%2B01:00", NS),
        ("2025-12-01T03:20:00+01:00", NS),
        ("2025-12-01T00:20:00-02:00", NS),
    ],
)
def test_times_are_rfc_3339_or_seconds(text: str, ns: int) -> None:
    assert wanted(f"from={text}").from_ns == ns
    assert wanted(f"to={text}").to_ns == ns
    window = Wanted(from_ns=ns, to_ns=ns + 1)
    assert [window.has_time(ns + step) for step in (-1, 0, 1)] == [False, True, False]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("form=1", "'form' is no parameter; known are pod, from, to, filter"),
        ("from=1&from=2", "from is given 2 times"),
        ("from=yesterday", "from is 'yesterday'; must be RFC 3339"),
        ("to=2025-13-01T00:00:00Z", "must be RFC 3339"),
        ("to=2025-12-01T00:00:00", "must be RFC 3339"),
        ("from=", "must be RFC 3339"),
        ("from=99999999999", "must be RFC 3339"),
        ("from=2&to=1", "from is not before to"),
        ("from=1&to=1", "from is not before to"),
        ("filter=host example.com", "names of hosts and networks are not looked up"),
        ("filter=" + "x" * 2000, "at most 1024"),
    ],
)
def test_what_is_wrong_is_said(query: str, sentence: str) -> None:
    with pytest.raises(BadQuery, match=sentence):
        wanted(query)
