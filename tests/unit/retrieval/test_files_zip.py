"""`files.zip`: all of a capture, and parts of it."""

import io
import random
import zipfile

import pytest

from tests.unit.retrieval.asking import DOWNLOADS, NAME, Files, put
from tests.unit.retrieval.builders import FIRST_US, HEADER, a_key, a_pcap, a_record


@pytest.mark.parametrize("path", DOWNLOADS)
def test_a_zip_holds_every_file_and_its_length_is_said_before(files: Files, path: str) -> None:
    pcaps = {seq: a_pcap(200, first_us=FIRST_US + seq * 10**6, seed=seq) for seq in range(5)}
    for seq, pcap in pcaps.items():
        put(files, pcap, seq, complete=seq < 4)
    answer = files.ask(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Length"] == str(len(answer.data))
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {
            f"web-0_eth0-{FIRST_US + seq * 10**6}.pcap": pcap for seq, pcap in pcaps.items()
        }
    head = files.ask(path, method="HEAD")
    assert head.headers["Content-Length"] == str(len(answer.data))


def test_any_part_of_a_finished_zip_is_the_very_bytes(files: Files) -> None:
    for seq in range(3):
        put(files, a_pcap(50, first_us=FIRST_US + seq * 10**6, seed=seq), seq)
    whole = files.ask(DOWNLOADS[0])
    etag = whole.headers["ETag"]
    source = random.Random(1)  # noqa: S311 - chooses parts
    cuts = [sorted(source.sample(range(len(whole.data) + 1), 2)) for _ in range(50)]
    for begin, end in [*cuts, (0, 1), (len(whole.data) - 1, len(whole.data))]:
        # Nothing is remembered of an earlier answer: checksums of files before it are needed too.
        answer = files.ask(DOWNLOADS[0], Range=f"bytes={begin}-{end - 1}")
        assert answer.status_code == 206
        assert answer.data == whole.data[begin:end]
        assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(whole.data)}"
    put(files, a_pcap(first_us=FIRST_US + 10**9), 9)
    resumed = files.ask(DOWNLOADS[0], Range="bytes=10-", If_Range=etag)
    assert resumed.status_code == 200
    assert len(resumed.data) > len(whole.data)


def test_a_part_of_a_zip_can_be_had_without_the_whole_before(files: Files) -> None:
    put(files, a_pcap(50), 1)
    put(files, a_pcap(50, first_us=FIRST_US + 10**9), 2)
    length = int(files.ask(DOWNLOADS[0], method="HEAD").headers["Content-Length"])
    half = length // 2
    parts = [
        files.ask(DOWNLOADS[0], Range=f"bytes={begin}").data
        for begin in (f"{half}-", f"0-{half - 1}")
    ]
    with zipfile.ZipFile(io.BytesIO(parts[1] + parts[0])) as archive:
        assert archive.testzip() is None


def test_of_a_zip_that_still_grows_there_are_no_parts(files: Files) -> None:
    put(files, a_pcap(), 1, complete=False)
    answer = files.ask(DOWNLOADS[0], Range="bytes=0-9")
    assert answer.status_code == 200
    assert "ETag" not in answer.headers
    assert "Accept-Ranges" not in answer.headers


@pytest.mark.parametrize("path", DOWNLOADS)
def test_without_files_there_is_no_content(files: Files, path: str) -> None:
    put(files, HEADER)
    answer = files.ask(path)
    assert (answer.status_code, answer.data) == (204, b"")


def test_a_zip_under_way_is_whole_though_files_grow_and_go(files: Files) -> None:
    big = a_pcap(8000)
    put(files, big, 1)
    put(files, a_pcap(first_us=FIRST_US + 10**9), 2, complete=False)
    answer = files.ask(DOWNLOADS[0])
    chunks = iter(answer.response)
    data = next(chunks)
    put(files, a_record(FIRST_US + 2 * 10**9), 2, complete=True)
    files.store.delete_segment(a_key(1))
    data += b"".join(chunks)
    answer.close()
    assert answer.headers["Content-Length"] == str(len(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read(NAME) == big
        assert archive.read(archive.namelist()[1]) == a_pcap(first_us=FIRST_US + 10**9)
