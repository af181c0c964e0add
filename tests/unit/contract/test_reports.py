import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.reports import (
    MAX_GAPS,
    MAX_REPORT_BYTES,
    BadReport,
    Gap,
    Lost,
    Reason,
    Report,
    State,
    dump_report,
    parse_report,
)

_counts = st.integers(0, 2**63 - 1)
_gaps = st.builds(
    Gap,
    interface=st.sampled_from(["eth0", "ünïcødé", "\U0001f999" * 3]),
    first=_counts,
    last=_counts,
    offset=_counts,
    bytes=_counts,
)
_reports = st.builds(
    Report,
    seq=_counts,
    at=st.floats(0, 2**52),
    state=st.sampled_from(State),
    reason=st.sampled_from(Reason),
    message=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    packets=_counts,
    bytes=_counts,
    received=_counts,
    dropped=_counts,
    lost=st.builds(Lost, _counts, _counts, st.lists(_gaps, max_size=4).map(tuple)),
    backlog=_counts,
    shipped=st.booleans(),
    v=st.just(1),
)


def text_of(**change):
    return json.dumps({"v": 1, "seq": 1, "at": 1, "state": "capturing", **change})


@given(_reports)
def test_what_is_written_is_read_back_and_fits_a_header(report):
    text = dump_report(report)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= MAX_REPORT_BYTES
    assert parse_report(text) == report


@pytest.mark.parametrize("message", ["x" * 100_000, "\U0001f999" * 5000, '"' * 5000, "\0" * 5000])
def test_a_long_message_is_cut_until_the_report_fits(message):
    text = dump_report(Report(1, 1.0, State.FAILED, message=message))
    assert len(text) <= MAX_REPORT_BYTES
    said = parse_report(text).message
    assert said
    assert message.startswith(said)


@pytest.mark.parametrize("message", ["", "\0" * 5000])
def test_of_gaps_that_do_not_fit_the_newest_are_told(message):
    gaps = tuple(Gap("\U0001f999" * 15, n, n, 2**62, 2**62) for n in range(MAX_GAPS))
    lost = Lost(40, 2**62, gaps)
    text = dump_report(Report(1, 1.0, State.FAILED, message=message, lost=lost))
    assert len(text) <= MAX_REPORT_BYTES
    said = parse_report(text).lost
    assert (said.segments, said.bytes) == (40, 2**62)
    assert said.gaps
    assert said.gaps == gaps[-len(said.gaps) :]


def test_a_report_of_the_first_release_names_no_gaps():
    assert parse_report(text_of(lost={"segments": 2, "bytes": 3})).lost == Lost(2, 3)


def test_a_later_releases_fields_and_reasons_are_passed_over():
    report = parse_report(text_of(reason="moon", colour="red"))
    assert report.reason is Reason.NONE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[]", "object"),
        ("[" * 4000, "not JSON"),
        ("x" * 5000, "5000 bytes"),
        (text_of(state="flying"), "'flying'"),
        (text_of(state=None), "'None'"),
        (text_of(seq=-1), "seq"),
        (text_of(seq=True), "seq"),
        (text_of(seq=1.5), "seq"),
        (text_of(packets="3"), "packets"),
        (text_of(bytes=2**63), "bytes"),
        (text_of(at="now"), "at"),
        (text_of(at=-1), "at"),
        (text_of(lost=3), "lost"),
        (text_of(lost={"bytes": -1}), "bytes"),
        (text_of(lost={"gaps": {}}), "lost.gaps"),
        (text_of(lost={"gaps": [3]}), "lost.gaps"),
        (text_of(lost={"gaps": [{"interface": "../x"}]}), "no name of an interface"),
        (text_of(lost={"gaps": [{"interface": "eth0", "first": "1"}]}), "first"),
    ],
)
def test_a_bad_report_is_refused_with_field_and_rule(text, says):
    with pytest.raises(BadReport, match=says):
        parse_report(text)


def test_a_clock_that_is_no_number_is_refused():
    with pytest.raises(BadReport):
        parse_report('{"v":1,"seq":1,"at":NaN,"state":"capturing"}')
    with pytest.raises(BadReport):
        parse_report('{"v":1,"seq":1,"at":Infinity,"state":"capturing"}')


@given(st.dictionaries(
    st.sampled_from(["v", "seq", "at", "state", "reason", "message", "lost", "shipped"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.lists(st.integers(), max_size=2)))  # fmt: skip
def test_whatever_json_nothing_but_a_bad_report_comes_of_it(change):
    try:
        parse_report(text_of(**change))
    except BadReport:
        return
