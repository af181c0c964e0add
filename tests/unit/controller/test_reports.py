import json

import pytest

from controller.reports import BadAnswer, ReportBook, parse_answer
from nightcap.contract.reports import State
from tests.unit.controller.builders import a_report, uid_of

ITEM = {
    "capture": "ab-12",
    "namespace": "shop",
    "pod": {"name": "web-1", "uid": "cd-34", "node": "node-a"},
    "report": {"v": 1, "seq": 7, "at": 12.5, "state": "capturing", "packets": 3, "later": [1]},
    "received_at": 13.25,
    "files": {"count": 1, "bytes": 24, "names": ["web-1_eth0-1.pcap"]},
}


def answer(*items):
    return json.dumps({"cursor": "b.7", "reports": items, "later": 1}).encode()


def test_an_answer_is_read_with_its_cursor():
    cursor, (report,) = parse_answer(answer(ITEM))
    assert cursor == "b.7"
    assert (report.capture, report.pod_uid, report.node) == ("ab-12", "cd-34", "node-a")
    assert (report.report.seq, report.report.state) == (7, State.CAPTURING)
    assert (report.report.packets, report.received_at) == (3, 13.25)
    assert (report.file_count, report.file_names) == (1, ("web-1_eth0-1.pcap",))


def test_a_report_that_is_wrong_is_left_out_and_the_others_stand():
    wrong = {**ITEM, "report": {"seq": -1, "state": "capturing"}}
    _, reports = parse_answer(answer(wrong, ITEM))
    assert [item.report.seq for item in reports] == [7]


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"reports": [{"capture": 1}]}'])
def test_an_answer_of_another_kind_is_refused(data):
    with pytest.raises(BadAnswer):
        parse_answer(data)


def test_the_highest_seq_of_a_pod_wins_in_whatever_order_they_come():
    book = ReportBook()
    assert book.put([a_report(seq=5, packets=50)])
    assert book.put([a_report(seq=4, packets=40)]) == []
    assert book.put([a_report(seq=5, packets=51)]) == []
    assert [item.report.packets for item in book.of(uid_of("dns")).values()] == [50]
    assert book.put([a_report(seq=6, packets=60)])
    assert [item.report.packets for item in book.of(uid_of("dns")).values()] == [60]


def test_an_answer_of_a_collector_that_names_no_files_is_read():
    _, (report,) = parse_answer(answer({k: v for k, v in ITEM.items() if k != "files"}))
    assert (report.file_count, report.file_names) == (0, ())


def test_files_come_and_go_between_reports():
    book = ReportBook()
    book.put([a_report(seq=5, packets=50)])
    more = a_report(seq=5, packets=51, files=("web-1_eth0-1.pcap",))
    assert book.put([more])
    assert book.put([more]) == []
    (known,) = book.of(uid_of("dns")).values()
    assert (known.report.packets, known.file_names, known.file_count) == (50, more.file_names, 1)
    assert book.put([a_report(seq=4)]) == []
    assert book.put([a_report(seq=5)])
    assert [item.file_names for item in book.of(uid_of("dns")).values()] == [()]


def test_reports_of_a_capture_that_is_gone_are_dropped():
    book = ReportBook()
    book.put([a_report("dns"), a_report("http")])
    book.forget(uid_of("dns"))
    assert book.of(uid_of("dns")) == {}
    assert len(book.of(uid_of("http"))) == 1


def test_a_report_that_came_before_its_capture_outlives_one_round_of_tidying():
    book = ReportBook()
    book.put([a_report("dns"), a_report("http")])
    book.tidy({uid_of("http")})
    assert len(book.of(uid_of("dns"))) == 1
    book.tidy({uid_of("http")})
    assert book.of(uid_of("dns")) == {}
    assert len(book.of(uid_of("http"))) == 1
