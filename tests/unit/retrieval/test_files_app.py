"""Lists, files, ranges of files, and their deletion."""

import io
import zipfile

import pytest

from nightcap.contract.segments import StreamKey
from retrieval.store.base import StreamMeta
from tests.unit.retrieval.asking import BASE, DELETIONS, DOWNLOADS, NAME, OURS, Files, put
from tests.unit.retrieval.builders import (
    CAPTURE,
    FIRST_US,
    HEADER,
    STREAM,
    a_capture,
    a_pcap,
    a_record,
    a_report,
)
from tests.unit.retrieval.s3 import S3Server


def test_a_capture_that_was_made_again_starts_empty(files: Files) -> None:
    put(files, a_pcap())
    files.api.captures = [a_capture(uid="ca9a0000-0000-4000-8000-000000000002")]
    assert files.ask(f"{BASE}/files").json == {"files": [], "missing": []}
    assert files.ask(f"{BASE}/files/{NAME}").status_code == 404
    assert files.ask(DOWNLOADS[0]).status_code == 204


def test_the_list_names_every_file_with_a_packet(files: Files) -> None:
    put(files, HEADER + a_record(FIRST_US) + a_record(FIRST_US + 1_500_000))
    put(files, HEADER + a_record(FIRST_US + 2_000_000), 2, complete=False)
    put(files, HEADER, 3)
    put(files, HEADER + a_record(FIRST_US), interface="br@x")
    files.store.write_report(
        STREAM, f'{{"received_at": 5, "report": {a_report(dropped=3)}}}'.encode(), 1
    )
    listed = files.ask(f"{BASE}/files").json
    assert listed is not None
    assert listed["files"][1:] == [
        {
            "file": NAME,
            "pod": "web-0",
            "node": "node-a",
            "interface": "eth0",
            "size": 24 + 2 * 76,
            "packets": 2,
            "dropped": 3,
            "first": "2023-11-14T22:13:20.000000Z",
            "last": "2023-11-14T22:13:21.500000Z",
            "state": "complete",
        },
        {
            "file": f"web-0_eth0-{FIRST_US + 2_000_000}.pcap",
            "pod": "web-0",
            "node": "node-a",
            "interface": "eth0",
            "size": 24 + 76,
            "packets": 1,
            "dropped": 3,
            "first": "2023-11-14T22:13:22.000000Z",
            "last": "2023-11-14T22:13:22.000000Z",
            "state": "growing",
        },
    ]
    assert listed["files"][0]["file"] == f"web-0_br%40x-{FIRST_US}.pcap"
    name = listed["files"][0]["file"].replace("%", "%25")
    assert files.ask(f"{BASE}/files/{name}").data == HEADER + a_record(FIRST_US)


# One file.


@pytest.mark.parametrize(
    ("range_", "status", "begin", "end"),
    [
        pytest.param("bytes=0-99", 206, 0, 100, id="the beginning"),
        pytest.param("bytes=100-", 206, 100, None, id="from somewhere to the end"),
        pytest.param("bytes=-50", 206, -50, None, id="the last bytes"),
        pytest.param("bytes=100-99999999", 206, 100, None, id="beyond the end"),
        pytest.param("bytes=0-0", 206, 0, 1, id="one byte"),
        pytest.param("bytes=0-9,20-29", 200, 0, None, id="two ranges: everything"),
        pytest.param("lines=0-9", 200, 0, None, id="another unit: everything"),
        pytest.param("bytes=x-y", 200, 0, None, id="no range: everything"),
        pytest.param("bytes=9-5", 200, 0, None, id="backwards: everything"),
    ],
)
def test_a_range_of_a_file(
    files: Files, range_: str, status: int, begin: int, end: int | None
) -> None:
    pcap = a_pcap(50)
    put(files, pcap)
    answer = files.ask(f"{BASE}/files/{NAME}", Range=range_)
    assert answer.status_code == status
    assert answer.data == pcap[begin:end]
    assert answer.headers["Content-Length"] == str(len(pcap[begin:end]))
    if status == 206:
        first = begin % len(pcap)
        last = first + len(answer.data) - 1
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(pcap)}"


def test_a_range_behind_the_end_is_not_satisfiable(files: Files) -> None:
    put(files, a_pcap())
    size = len(a_pcap())
    answer = files.ask(f"{BASE}/files/{NAME}", Range=f"bytes={size}-")
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}")


def test_an_etag_names_the_very_bytes(files: Files) -> None:
    pcap = a_pcap(50)
    put(files, pcap, complete=False)
    etag = files.ask(f"{BASE}/files/{NAME}", method="HEAD").headers["ETag"]
    path = f"{BASE}/files/{NAME}"
    assert files.ask(path, If_None_Match=etag).status_code == 304
    assert files.ask(path, If_None_Match='"other"').status_code == 200
    half = {"Range": "bytes=100-"}
    assert files.ask(path, If_Range=etag, **half).status_code == 206
    assert files.ask(path, If_Range='"other"', **half).status_code == 200
    assert files.ask(path, If_Range=f"W/{etag}", **half).status_code == 200
    assert files.ask(path, If_Range="Sun, 22 Nov 2026 00:00:00 GMT", **half).status_code == 200
    put(files, a_record(FIRST_US + 10**6), complete=True)
    assert files.ask(path, If_Range=etag, **half).status_code == 200


def test_head_tells_all_about_a_file_and_hands_out_nothing(files: Files) -> None:
    put(files, a_pcap())
    answer = files.ask(f"{BASE}/files/{NAME}", method="HEAD")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(a_pcap()))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{NAME}"'
    assert files.audit == []


def test_of_a_growing_file_only_whole_records_are_handed_out(files: Files) -> None:
    pcap = a_pcap(3)
    put(files, pcap + a_record(FIRST_US + 10**6)[:30], complete=False)
    answer = files.ask(f"{BASE}/files/{NAME}")
    assert answer.data == pcap
    archive = files.ask(DOWNLOADS[0])
    assert zipfile.ZipFile(io.BytesIO(archive.data)).read(NAME) == pcap


def test_files_that_would_share_a_name_are_told_apart(files: Files) -> None:
    """A StatefulSet's pod that was replaced has the old one's name."""
    other = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000002")
    files.store.create_stream(other, StreamMeta(pod="web-0", node="node-b", capture="dns"))
    put(files, a_pcap(1, seed=1))
    put(files, a_pcap(1, seed=2), stream=other)
    names = [f"web-0_eth0-{FIRST_US}.pcap", f"web-0_eth0-{FIRST_US + 1}.pcap"]
    with zipfile.ZipFile(io.BytesIO(files.ask(DOWNLOADS[0]).data)) as archive:
        assert archive.namelist() == names
    assert [files.ask(f"{BASE}/files/{name}").data for name in names] == [
        a_pcap(1, seed=1),
        a_pcap(1, seed=2),
    ]


# Deleting.


@pytest.mark.parametrize("path", DELETIONS)
def test_a_finished_captures_files_can_be_deleted_and_its_reports_stay(
    files: Files, path: str
) -> None:
    files.api.captures = [a_capture(phase="Finished")]
    files.store.write_report(STREAM, b"{}", 1)
    put(files, a_pcap())
    answer = files.ask(path, method="DELETE", who="owner")
    assert (answer.status_code, answer.text) == (200, "1 files deleted\n")
    assert files.store.segments(STREAM) == ()
    assert files.store.report(STREAM) == b"{}"
    (record,) = files.audit
    assert (record["action"], record["user"], record["bytes"], record["ended"]) == (
        "delete",
        "owner",
        len(a_pcap()),
        "complete",
    )


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        ("Capturing", "capture state is not Finished\n"),
        ("Error", "capture state is not Finished\n"),
        (None, "capture state cannot be determined\n"),
    ],
)
def test_files_of_a_capture_that_is_not_finished_stay(
    files: Files, phase: str | None, sentence: str
) -> None:
    files.api.captures = [a_capture(phase=phase)]
    put(files, a_pcap())
    answer = files.ask(DELETIONS[0], method="DELETE", who="owner")
    assert (answer.status_code, answer.text) == (403, sentence)
    assert len(files.store.segments(STREAM)) == 1
    assert files.audit == []


# The record.


def test_every_answer_with_data_leaves_a_record(files: Files) -> None:
    pcap = a_pcap(50)
    put(files, pcap)
    headers = {"Range": "bytes=0-99", "X_Forwarded_For": "192.0.2.7"}
    files.ask(f"{BASE}/files/{NAME}", **headers).close()
    _ = files.ask(f"{BASE}/files/{NAME}", **headers).data
    archive = files.ask(DOWNLOADS[0]).data
    assert [(r["what"], r["bytes"], r["ended"], r["status"]) for r in files.audit] == [
        (NAME, 0, "cut", 206),
        (NAME, 100, "complete", 206),
        ("files.zip", len(archive), "complete", 200),
    ]
    record = files.audit[1]
    assert {key: record[key] for key in record if key not in ("at", "address")} == {
        "action": "get",
        "user": "reader",
        "groups": ["system:authenticated"],
        "namespace": "storefront",
        "capture": "dns",
        "capture_uid": CAPTURE,
        "what": NAME,
        "forwarded_for": "192.0.2.7",
        "status": 206,
        "bytes": 100,
        "ended": "complete",
    }


@pytest.mark.parametrize("place", ["objects"], indirect=True)
def test_while_the_store_is_away_an_answer_says_so(files: Files, s3_server: S3Server) -> None:
    put(files, a_pcap())
    s3_server.stop()
    try:
        for path in (*OURS, f"{BASE}/merged.pcapng"):
            answer = files.ask(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.text.startswith("object store: list s3://captures/test-")
    finally:
        s3_server.start()
    assert files.ask(f"{BASE}/files/{NAME}").data == a_pcap()
