from nightcap.contract.reports import State
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_pod,
    a_report,
    a_view,
    at,
)
from tests.unit.controller.statuses import CAPTURING, status_of


def test_files_are_listed_once_a_node():
    reports = [
        a_report(pod="a", node="n1"),
        a_report(pod="b", node="n1", state=State.WAITING),
        a_report(pod="c", node="n2", state=State.FAILED),
    ]
    status = status_of(a_view([a_capture()], [], reports))
    assert status["files"] == [
        {"node": "n1", "directory": "shop/dns", "fileNames": [], "state": "Capturing"},
        {"node": "n2", "directory": "shop/dns", "fileNames": [], "state": "Error"},
    ]


def test_a_node_with_matching_pods_has_its_state_before_anybody_reports():
    pods = [a_pod("a", node="n1"), a_pod("b", node="n2"), a_pod("c", node="n3", injected=False)]
    waiting = status_of(a_view([a_capture()], pods))["files"]
    assert [(e["node"], e["state"]) for e in waiting] == [
        ("n1", "WaitingForTraffic"),
        ("n2", "WaitingForTraffic"),
    ]
    later = status_of(a_view([a_capture(startTime=at(NOW + 60))], pods))["files"]
    assert [e["state"] for e in later] == ["Scheduled", "Scheduled"]
    over = status_of(a_view([a_capture(suspend=True)], pods))["files"]
    assert [e["state"] for e in over] == ["Finished", "Finished"]


def test_files_are_named_sorted_for_each_node():
    reports = [
        a_report(pod="b", node="n1", files=("b_eth0-100.pcap", "b_eth0-99.pcap")),
        a_report(pod="a", node="n1", files=("a_eth0-7.pcap",)),
        a_report(pod="c", node="n2", files=("c_eth0-5.pcap",)),
    ]
    status = status_of(a_view([a_capture()], [], reports))
    assert [entry["fileNames"] for entry in status["files"]] == [
        ["a_eth0-7.pcap", "b_eth0-100.pcap", "b_eth0-99.pcap"],
        ["c_eth0-5.pcap"],
    ]
    assert status["fileCount"] == 4


def test_where_there_are_too_many_files_the_newest_are_named():
    files = tuple(f"{'x' * 200}_eth0-{number}.pcap" for number in range(1000))
    status = status_of(a_view([a_capture()], [], [a_report(files=files)]))
    (entry,) = status["files"]
    assert status["fileCount"] == 1000
    assert 100 < len(entry["fileNames"]) < 200
    assert entry["fileNames"] == sorted(files[-len(entry["fileNames"]) :])


def test_names_that_files_have_in_a_later_release_are_named_last():
    files = ("strange", "web-1_eth0-1.pcap")
    status = status_of(a_view([a_capture()], [], [a_report(files=files)]))
    assert status["files"][0]["fileNames"] == ["strange", "web-1_eth0-1.pcap"]


def test_files_of_an_ended_capture_are_finished_whatever_a_killed_pod_said_last():
    status = status_of(a_view([a_capture(suspend=True)], [], [CAPTURING]))
    assert [entry["state"] for entry in status["files"]] == ["Finished"]
