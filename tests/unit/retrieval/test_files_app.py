import io
import json
import random
import zipfile
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from nightcap.contract.segments import StreamKey
from retrieval.audit import Auditor
from retrieval.files.app import create_app
from retrieval.files.people import People
from retrieval.store.base import Store, StreamMeta
from tests.unit.retrieval.builders import (
    CALICO,
    CAPTURE,
    HEADER,
    POD,
    STREAM,
    a_calico_capture,
    a_capture,
    a_key,
    a_pcap,
    a_record,
    a_report,
)
from tests.unit.retrieval.fake_api import FakeApi
from tests.unit.retrieval.s3 import S3Server

BASE = "/v1/namespaces/storefront/packetcaptures/dns"
FIRST = 1_700_000_000_000_000
NAME = f"web-0_eth0-{FIRST}.pcap"
DOWNLOADS = (
    "/download/storefront/dns/files.zip",
    "/packet-capture/download/storefront/dns/files.zip",
    f"{BASE}/files.zip",
)
OURS = (f"{BASE}/files", f"{BASE}/files/{NAME}", f"{BASE}/files.zip")
DELETIONS = (
    "/files/storefront/dns",
    "/packet-capture/files/storefront/dns",
    "/packet-capture/files/storefront/dns/files.zip",
    "/packet-capture/download/storefront/dns/files.zip",
)


class Files:
    """The application, its audit records, and people by their tokens."""

    def __init__(self, store: Store, api: FakeApi) -> None:
        self.store, self.api = store, api
        self.audit: list[dict[str, Any]] = []
        auditor = Auditor(lambda line: self.audit.append(json.loads(line)))
        self.has_calico = True
        people = People(api.client, has_calico=lambda: self.has_calico)
        self.client = Client(create_app(store, people, auditor, lambda: True))

    def ask(
        self, path: str, *, who: str = "reader", method: str = "GET", **headers: str
    ) -> TestResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if who:
            sent.setdefault("Authorization", f"Bearer {who}")
        return self.client.open(path, method=method, headers=sent)


def allow(
    api: FakeApi,
    user: str,
    verb: str,
    namespace: str = "storefront",
    group: str = "nightcap.dev",
) -> None:
    api.allowed.add((user, verb, group, "packetcaptures", "files", namespace, "dns"))


@pytest.fixture
def files(store: Store, api: FakeApi) -> Files:
    """One capture; `reader` may get its files, `owner` delete them, `capturer` neither."""
    for user in ("reader", "owner", "capturer", "elsewhere"):
        api.users[user, "api"] = {"username": user, "groups": ["system:authenticated"]}
    api.add_pod_token("sidecar", "storefront", "web-0", POD)
    allow(api, "reader", "get")
    allow(api, "owner", "delete")
    allow(api, "elsewhere", "get", "mail")
    api.captures = [a_capture()]
    store.create_stream(STREAM, StreamMeta(pod="web-0", node="node-a", capture="dns"))
    return Files(store, api)


def put(
    files: Files,
    pcap: bytes,
    seq: int = 1,
    *,
    complete: bool = True,
    interface: str = "eth0",
    stream: StreamKey = STREAM,
) -> None:
    key = a_key(seq, interface, stream)
    size = files.store.segment(key).size
    files.store.append(key, size, pcap, complete=complete)
    files.store.wait_durable(key, size + len(pcap), 5)


# Who may.


def everything() -> list[tuple[str, str]]:
    reads = [f"{BASE}/files", f"{BASE}/files/{NAME}", *DOWNLOADS]
    return [("GET", path) for path in reads] + [("DELETE", path) for path in DELETIONS]


@pytest.mark.parametrize(("method", "path"), everything())
@pytest.mark.parametrize("exists", [True, False], ids=["exists", "does not exist"])
def test_without_a_right_nobody_learns_whether_a_capture_exists(
    files: Files, method: str, path: str, exists: bool
) -> None:
    put(files, a_pcap())
    files.api.captures = [a_capture()] if exists else []
    for token in ("", "stranger", "sidecar"):
        answer = files.ask(path, method=method, who=token)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for token in ("capturer", "elsewhere", "reader" if method == "DELETE" else "owner"):
        answer = files.ask(path, method=method, who=token)
        verb = method.lower()
        assert answer.status_code == 403
        group = "nightcap.dev" if path in OURS else "projectcalico.org or nightcap.dev"
        assert answer.text == (
            f"{token} is not authorized to {verb} packetcaptures/files of {group} "
            "named dns in namespace storefront\n"
        )
    assert not any("packetcaptures/dns" in path for path in files.api.asked)
    assert files.audit == []


@pytest.mark.parametrize(("method", "path"), everything())
def test_with_the_right_a_capture_that_is_not_there_is_not_found(
    files: Files, method: str, path: str
) -> None:
    files.api.captures = []
    token = "owner" if method == "DELETE" else "reader"
    answer = files.ask(path, method=method, who=token)
    assert (answer.status_code, "no capture dns" in answer.text) == (404, True)


def test_the_service_proxys_header_counts_as_well(files: Files) -> None:
    headers = {"Nightcap_Authorization": "Bearer reader"}
    assert files.ask(f"{BASE}/files", who="", **headers).status_code == 200
    headers = {"Nightcap_Authorization": "Bearer capturer", "Authorization": "Bearer reader"}
    assert files.ask(f"{BASE}/files", **headers).status_code == 403


@pytest.mark.parametrize("header", ["", "reader", "Basic cmVhZGVy", "Bearer", "Bearer a b"])
def test_what_is_no_bearer_token_is_nobody(files: Files, header: str) -> None:
    assert files.ask(f"{BASE}/files", who="", Authorization=header).status_code == 401


def test_a_path_that_leads_nowhere_is_told_to_people_only(files: Files) -> None:
    for path in ("/", "/v1", "/v1//namespaces", f"{BASE}/files/", "/metrics", "/static/x"):
        assert files.ask(path, who="").status_code == 401
        assert files.ask(path).status_code == 404
    assert files.ask(f"{BASE}/files", method="POST").status_code == 405


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "PATCH", "TRACE"])
def test_other_methods_have_no_answer(files: Files, method: str) -> None:
    for path in (*OURS, *DOWNLOADS):
        assert files.ask(path, method=method).status_code == 405
        assert files.ask(path, method=method, who="").status_code == 401


def test_while_the_api_is_down_nobody_gets_anything(files: Files) -> None:
    put(files, a_pcap())
    files.api.is_down = True
    answer = files.ask(f"{BASE}/files")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_yes_is_remembered_for_seconds_but_not_whether_the_object_lives(files: Files) -> None:
    put(files, a_pcap())
    assert files.ask(f"{BASE}/files").status_code == 200
    reviews = [path for path in files.api.asked if path.endswith("reviews")]
    assert files.ask(f"{BASE}/files").status_code == 200
    assert [path for path in files.api.asked if path.endswith("reviews")] == reviews
    files.api.captures = []
    assert files.ask(f"{BASE}/files").status_code == 404


def test_a_capture_that_was_made_again_starts_empty(files: Files) -> None:
    put(files, a_pcap())
    files.api.captures = [a_capture(uid="ca9a0000-0000-4000-8000-000000000002")]
    assert files.ask(f"{BASE}/files").json == {"files": [], "missing": []}
    assert files.ask(f"{BASE}/files/{NAME}").status_code == 404
    assert files.ask(DOWNLOADS[0]).status_code == 204


# Paths that somebody made up.


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param(f"{BASE}/files/../../../../../etc/passwd", 404, id="dots in the path"),
        pytest.param(f"{BASE}/files/..%2f..%2fetc%2fpasswd", 404, id="encoded slashes"),
        pytest.param(f"{BASE}/files/..", 400, id="dots as file"),
        pytest.param(f"{BASE}/files/%2e%2e", 400, id="encoded dots as file"),
        pytest.param(f"{BASE}/files/meta.json", 400, id="a file of the store"),
        pytest.param(f"{BASE}/files/00000001.pcap", 400, id="the store's own name"),
        pytest.param(f"{BASE}/files/.{NAME}", 400, id="hidden"),
        pytest.param(f"{BASE}/files/{NAME}%00.txt", 400, id="zero byte"),
        pytest.param(f"{BASE}/files/{NAME}%0a", 400, id="line feed"),
        pytest.param(f"{BASE}/files/a_..-1.pcap", 400, id="dots as interface"),
        pytest.param(f"{BASE}/files/web-0_eth0-1.pcap", 404, id="another file"),
        pytest.param(f"{BASE}/files/{'a' * 5000}", 400, id="very long"),
        pytest.param("/v1/namespaces/../packetcaptures/dns/files", 400, id="dots as namespace"),
        pytest.param("/v1/namespaces/UP/packetcaptures/dns/files", 400, id="upper case"),
        pytest.param("/v1/namespaces/storefront/packetcaptures/%2e%2e/files", 400, id="dots"),
        pytest.param("/v1/namespaces/storefront/packetcaptures/a%20b/files", 400, id="blank"),
        pytest.param("/download/storefront/..%2f..%2fdns/files.zip", 404, id="Calico's, slashes"),
        pytest.param("/download/storefront/d%00ns/files.zip", 400, id="Calico's, zero byte"),
    ],
)
def test_a_made_up_path_gets_a_sentence_and_no_file(files: Files, path: str, status: int) -> None:
    put(files, a_pcap())
    answer = files.ask(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert files.audit == []


# The list.


def test_the_list_names_every_file_with_a_packet(files: Files) -> None:
    put(files, HEADER + a_record(FIRST) + a_record(FIRST + 1_500_000))
    put(files, HEADER + a_record(FIRST + 2_000_000), 2, complete=False)
    put(files, HEADER, 3)
    put(files, HEADER + a_record(FIRST), interface="br@x")
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
            "file": f"web-0_eth0-{FIRST + 2_000_000}.pcap",
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
    assert listed["files"][0]["file"] == f"web-0_br%40x-{FIRST}.pcap"
    name = listed["files"][0]["file"].replace("%", "%25")
    assert files.ask(f"{BASE}/files/{name}").data == HEADER + a_record(FIRST)


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
    put(files, a_record(FIRST + 10**6), complete=True)
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
    put(files, pcap + a_record(FIRST + 10**6)[:30], complete=False)
    answer = files.ask(f"{BASE}/files/{NAME}")
    assert answer.data == pcap
    archive = files.ask(DOWNLOADS[0])
    assert zipfile.ZipFile(io.BytesIO(archive.data)).read(NAME) == pcap


# The zip.


@pytest.mark.parametrize("path", DOWNLOADS)
def test_a_zip_holds_every_file_and_its_length_is_said_before(files: Files, path: str) -> None:
    pcaps = {seq: a_pcap(200, first_us=FIRST + seq * 10**6, seed=seq) for seq in range(5)}
    for seq, pcap in pcaps.items():
        put(files, pcap, seq, complete=seq < 4)
    answer = files.ask(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Length"] == str(len(answer.data))
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {
            f"web-0_eth0-{FIRST + seq * 10**6}.pcap": pcap for seq, pcap in pcaps.items()
        }
    head = files.ask(path, method="HEAD")
    assert head.headers["Content-Length"] == str(len(answer.data))


def test_any_part_of_a_finished_zip_is_the_very_bytes(files: Files) -> None:
    for seq in range(3):
        put(files, a_pcap(50, first_us=FIRST + seq * 10**6, seed=seq), seq)
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
    put(files, a_pcap(first_us=FIRST + 10**9), 9)
    resumed = files.ask(DOWNLOADS[0], Range="bytes=10-", If_Range=etag)
    assert resumed.status_code == 200
    assert len(resumed.data) > len(whole.data)


def test_a_part_of_a_zip_can_be_had_without_the_whole_before(files: Files) -> None:
    put(files, a_pcap(50), 1)
    put(files, a_pcap(50, first_us=FIRST + 10**9), 2)
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
    put(files, a_pcap(first_us=FIRST + 10**9), 2, complete=False)
    answer = files.ask(DOWNLOADS[0])
    chunks = iter(answer.response)
    data = next(chunks)
    put(files, a_record(FIRST + 2 * 10**9), 2, complete=True)
    files.store.delete_segment(a_key(1))
    data += b"".join(chunks)
    answer.close()
    assert answer.headers["Content-Length"] == str(len(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read(NAME) == big
        assert archive.read(archive.namelist()[1]) == a_pcap(first_us=FIRST + 10**9)


def test_files_that_would_share_a_name_are_told_apart(files: Files) -> None:
    """A StatefulSet's pod that was replaced has the old one's name."""
    other = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000002")
    files.store.create_stream(other, StreamMeta(pod="web-0", node="node-b", capture="dns"))
    put(files, a_pcap(1, seed=1))
    put(files, a_pcap(1, seed=2), stream=other)
    names = [f"web-0_eth0-{FIRST}.pcap", f"web-0_eth0-{FIRST + 1}.pcap"]
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


def test_health_needs_no_token(files: Files) -> None:
    assert files.ask("/healthz", who="").status_code == 200
    assert files.ask("/health", who="").status_code == 200  # Calico's
    assert files.ask("/readyz", who="").status_code == 200


# Calico's two paths.

THEIRS = StreamKey("storefront", CALICO, POD)


@pytest.fixture
def twins(files: Files) -> Files:
    """A capture `dns` in each group, with one file each; ours has two packets, theirs three."""
    put(files, a_pcap(2))
    files.store.create_stream(THEIRS, StreamMeta(pod="web-0", node="node-a", capture="dns"))
    put(files, a_pcap(3), stream=THEIRS)
    files.api.captures = [
        a_capture(phase="Finished"),
        a_calico_capture(phase="Finished"),
    ]
    for name, groups in RIGHTS.items():
        files.api.users[name, "api"] = {"username": name}
        for group in groups:
            for verb in ("get", "delete"):
                allow(files.api, name, verb, group=group)
    return files


RIGHTS = {
    "nobody": (),
    "theirs": ("projectcalico.org",),
    "ours": ("nightcap.dev",),
    "both": ("projectcalico.org", "nightcap.dev"),
}


def counted(answer: TestResponse) -> int:
    """Packets in the one file of a zip, each at least 17 bytes."""
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        (name,) = archive.namelist()
        data = archive.read(name)
    return {len(a_pcap(2)): 2, len(a_pcap(3)): 3}[len(data)]


@pytest.mark.parametrize("path", [path for path in DOWNLOADS if path not in OURS])
@pytest.mark.parametrize(
    ("who", "exists", "answered"),
    [
        ("nobody", "both", 403),
        ("nobody", "neither", 403),
        ("theirs", "both", 3),
        ("theirs", "theirs", 3),
        ("theirs", "ours", 404),
        ("theirs", "neither", 404),
        ("ours", "both", 2),
        ("ours", "ours", 2),
        ("ours", "theirs", 404),
        ("ours", "neither", 404),
        ("both", "both", 3),
        ("both", "theirs", 3),
        ("both", "ours", 2),
        ("both", "neither", 404),
    ],
)
def test_a_path_without_group_means_what_its_asker_may_know_of(
    twins: Files, path: str, who: str, exists: str, answered: int
) -> None:
    kept = {"both": [0, 1], "ours": [0], "theirs": [1], "neither": []}[exists]
    twins.api.captures = [twins.api.captures[number] for number in kept]
    answer = twins.ask(path, who=who)
    if answered in (2, 3):
        assert answer.status_code == 200
        assert counted(answer) == answered
        assert twins.audit[-1]["capture_uid"] == (CALICO if answered == 3 else CAPTURE)
    else:
        assert answer.status_code == answered
    if who == "ours":
        assert not any("projectcalico.org" in p for p in twins.api.asked if "/namespaces/" in p)


def test_paths_with_a_group_mean_that_group_alone(twins: Files) -> None:
    assert twins.ask(f"{BASE}/files.zip", who="theirs").status_code == 403
    assert counted(twins.ask(f"{BASE}/files.zip", who="both")) == 2
    twins.api.captures = twins.api.captures[1:]
    assert twins.ask(f"{BASE}/files.zip", who="both").status_code == 404


def test_a_group_that_is_somebody_elses_is_not_looked_at(twins: Files) -> None:
    twins.has_calico = False
    assert counted(twins.ask(DOWNLOADS[0], who="both")) == 2
    assert twins.ask(DOWNLOADS[0], who="theirs").status_code == 404
    assert not any(p.startswith("/apis/projectcalico.org") for p in twins.api.asked)


@pytest.mark.parametrize("path", DELETIONS)
def test_deletion_takes_the_files_of_the_group_that_the_path_means(twins: Files, path: str) -> None:
    assert twins.ask(path, who="theirs", method="DELETE").status_code == 200
    assert twins.store.segments(THEIRS) == ()
    assert len(twins.store.segments(STREAM)) == 1
    assert twins.ask(DOWNLOADS[0], who="theirs").status_code == 204
    assert twins.ask(path, who="ours", method="DELETE").status_code == 200
    assert twins.store.segments(STREAM) == ()


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [("Capturing", "capture state is not Finished"), (None, "capture state cannot be determined")],
)
def test_files_of_a_calico_capture_that_runs_stay(
    twins: Files, phase: str | None, sentence: str
) -> None:
    twins.api.captures = [a_calico_capture(phase=phase)]
    answer = twins.ask(DELETIONS[0], who="theirs", method="DELETE")
    assert (answer.status_code, answer.text) == (403, f"{sentence}\n")
    assert len(twins.store.segments(THEIRS)) == 1


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
