"""`get` against a small real HTTP server in the place of API server and retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nightcap.kube import paths
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_received import NAME, a_pcap, a_zip
from tests.unit.kube.small_api import SmallApi, a_kubeconfig

BASE = paths.service_proxy(
    "nightcap-system",
    "https:nightcap-retrieval:443",
    "/v1/namespaces/shop/packetcaptures/dns",
)
ZIP = f"{BASE}/files.zip"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_files_come_into_a_folder_called_like_the_capture(
    api: SmallApi, nightcap: Run, here: Path
) -> None:
    api.answers["GET", ZIP] = [(200, a_zip({NAME: a_pcap(b"one", b"two")}).getvalue())]
    ran = nightcap("get", "dns")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "1 file, 2 packets, 62 B, checked: dns\n"
    assert [path.name for path in (here / "dns").iterdir()] == [NAME]
    assert api.headers[-1]["Nightcap-Authorization"] == "Bearer the-token"


def test_zip_goes_where_it_is_told_to(api: SmallApi, nightcap: Run, here: Path) -> None:
    data = a_zip({NAME: a_pcap(b"one")}).getvalue()
    api.answers["GET", ZIP] = [(200, data)]
    assert nightcap("get", "dns", "-o", "all.zip").code == 0
    assert (here / "all.zip").read_bytes() == data
    assert [path.name for path in here.iterdir()] == ["all.zip"]
    assert nightcap("get", "dns", "-d", "a", "-o", "b").code == 2


def test_one_pods_file_can_be_piped(api: SmallApi, nightcap: Run, here: Path) -> None:
    listed = {"files": [{"file": NAME, "pod": "web-1"}, {"file": NAME, "pod": "web-2"}]}
    api.answers["GET", f"{BASE}/files"] = [(200, listed)]
    api.answers["GET", f"{BASE}/files/{NAME}"] = [(200, a_pcap(b"abc"))]
    ran = nightcap("get", "dns", "--pod", "web-1", "-o", "-")
    assert ran.code == 0, ran.err
    assert "1 packets" in ran.err
    assert nightcap("get", "dns", "--pod", "web-1", "-d", "pods").code == 0
    assert (here / "pods" / NAME).read_bytes() == a_pcap(b"abc")
    both = nightcap("get", "dns", "--pod", "web-1", "--pod", "web-2", "-o", "x")
    assert "-o takes one file, and dns has 2" in both.err
    unknown = nightcap("get", "dns", "--pod", "nix")
    assert "dns has no files of nix; it has files of web-1, web-2" in unknown.err


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"PK no zip", "no whole zip", id="no zip"),
        pytest.param(
            a_zip({"../../evil": a_pcap()}).getvalue(), "no name of a capture file", id="name"
        ),
        pytest.param(a_zip({NAME: b"junk" * 9}).getvalue(), "no pcap file", id="no pcap"),
    ],
)
def test_of_what_is_damaged_nothing_is_kept(
    api: SmallApi, nightcap: Run, here: Path, data: bytes, words: str
) -> None:
    api.answers["GET", ZIP] = [(200, data)]
    ran = nightcap("get", "dns")
    assert ran.code == 1
    assert words in ran.err
    assert "fetch it again" in ran.err
    assert list((here / "dns").iterdir()) == []


def a_refusal(status: int, resource: str) -> tuple[int, dict[str, Any]]:
    reason = {403: "Forbidden", 404: "NotFound"}[status]
    return status, {
        "kind": "Status",
        "reason": reason,
        "message": f'"{resource}" no',
        "code": status,
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param((204, b""), "dns has no files yet; kubectl nightcap status dns", id="empty"),
        pytest.param(a_refusal(403, "services"), "--role=nightcap-reach", id="no way"),
        pytest.param(a_refusal(404, "services"), "not installed", id="no service"),
        pytest.param((403, b"jo may not\n"), "nightcap-files in namespace shop", id="files"),
        pytest.param((401, b"the bearer token is not valid\n"), "log in again", id="token"),
        pytest.param((404, b"there is no capture dns\n"), "list -n shop", id="no capture"),
        pytest.param((503, b"no endpoints available"), "kubectl nightcap doctor", id="away"),
    ],
)  # fmt: skip
def test_refusals_say_who_refused_and_what_to_ask_for(
    api: SmallApi, nightcap: Run, here: Path, answer: tuple[int, Any], words: str
) -> None:
    api.answers["GET", ZIP] = [answer]
    ran = nightcap("get", "dns")
    assert ran.code == 1
    assert words in ran.err
    assert list(here.iterdir()) == []


def test_client_certificate_asks_as_a_service_account_that_may(
    api: SmallApi, nightcap: Run, kubeconfig: Path, here: Path
) -> None:
    kubeconfig.write_text(a_kubeconfig(api.url, with_token=False))
    refused = nightcap("get", "dns")
    assert refused.code == 1
    assert "--as-service-account" in refused.err
    assert "rolebinding analyst-files --clusterrole=nightcap-files" in refused.err
    captures = paths.packetcaptures("shop")
    api.answers["GET", captures] = [(404, b"404 page not found\n"), (403, {"message": "no list"})]
    assert "Nightcap is not installed" in nightcap("get", "dns").err
    assert "--as-service-account" in nightcap("get", "dns").err
    path = paths.service_account_token("shop", "analyst")
    api.answers["POST", path] = [(201, {"status": {"token": "short-lived"}})]
    api.answers["GET", ZIP] = [(200, a_zip({NAME: a_pcap(b"one")}).getvalue())]
    assert nightcap("get", "dns", "--as-service-account", "analyst").code == 0
    assert api.headers[-1]["Nightcap-Authorization"] == "Bearer short-lived"
    assert "Authorization" not in api.headers[-1]
    # Without a word it looks for one that may, and says so.
    for name in ("analyst", "default"):
        api.put(f"{paths.service_accounts('shop')}/{name}")
    no, yes = {"status": {"allowed": False}}, {"status": {"allowed": True}}
    api.answers["POST", paths.ACCESS_REVIEWS] = [(201, no), (201, no), (201, yes)]
    assert nightcap("get", "dns").code == 1
    ran = nightcap("get", "dns")
    assert ran.code == 0, ran.err
    assert "asking as service account analyst of namespace shop" in ran.err


def test_place_that_cannot_be_written_is_named(api: SmallApi, nightcap: Run, here: Path) -> None:
    api.answers["GET", ZIP] = [(200, a_zip({NAME: a_pcap(b"one")}).getvalue())]
    ran = nightcap("get", "dns", "-o", "no/such/folder.zip")
    assert ran.code == 1
    assert "choose another place" in ran.err


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from nightcap.cli.progress import bar, progress

    with progress("dns", 100) as tell:
        tell(50)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress("dns", 100) as tell:
        tell(50)
    assert f"{bar('dns', 50, 100)}\r\x1b[K" in capsys.readouterr().err
    assert bar("dns", 50, 100) == "dns  [############............] 50 B of 100 B"


def test_one_file_is_gone_on_with_when_the_connection_breaks(
    api: SmallApi, nightcap: Run, here: Path
) -> None:
    data = a_pcap(*[b"x" * 100] * 50)
    whole = {"Content-Length": str(len(data)), "ETag": '"a-1"'}
    path = f"{BASE}/files/{NAME}"
    api.answers["GET", f"{BASE}/files"] = [(200, {"files": [{"file": NAME, "pod": "web-1"}]})]
    rest = {"Content-Length": str(len(data) - 1000)}
    api.answers["GET", path] = [(200, data[:1000], whole), (206, data[1000:3000], rest),
                                (206, data[3000:])]  # fmt: skip
    ran = nightcap("get", "dns", "--pod", "web-1", "-o", "one.pcap")
    assert ran.code == 0, ran.err
    assert (here / "one.pcap").read_bytes() == data
    assert [h.get("Range") for h in api.headers[-2:]] == ["bytes=1000-", "bytes=3000-"]
    assert api.headers[-1]["If-Range"] == '"a-1"'
    # Another state of it, or an end without end: nothing is kept.
    for second, words in (((200, data), "it changed"), ((206, b"", rest), "does not answer")):
        api.answers["GET", path] = [(200, data[:1000], whole), second]
        ran = nightcap("get", "dns", "--pod", "web-1", "-o", "two.pcap")
        assert ran.code == 1
        assert words in ran.err
        assert not (here / "two.pcap").exists()


def test_merged_is_one_checked_file(api: SmallApi, nightcap: Run, here: Path) -> None:
    from tests.unit.cli.test_follow import FRAME, a_stream

    path = f"{BASE}/merged.pcapng"
    api.answers["GET", path] = [(200, a_stream(FRAME, FRAME))]
    ran = nightcap("get", "dns", "--merged", "--pod", "web-1", "-f", "udp", "--from", "5")
    size = len(a_stream(FRAME, FRAME))
    assert (ran.code, ran.out) == (0, f"1 file, 2 packets, {size} B, checked: dns.pcapng\n")
    assert (here / "dns.pcapng").read_bytes() == a_stream(FRAME, FRAME)
    assert api.requests[-1][2] == {"pod": "web-1", "filter": "udp", "from": "5"}
    api.answers["GET", path] = [(200, a_stream(FRAME)[:-1])]
    cut = nightcap("get", "dns", "--merged", "-o", "cut.pcapng")
    assert cut.code == 1
    assert "cut off" in cut.err
    assert [file.name for file in here.iterdir()] == ["dns.pcapng"]
    api.answers["GET", path] = [(204, b"")]
    assert "dns has no files yet" in nightcap("get", "dns", "--merged").err
    nothing = nightcap("get", "dns", "--merged", "--pod", "web-1", "--from", "9")
    assert "dns has no packet of pod web-1, from 9; kubectl nightcap files dns" in nothing.err


def test_files_are_listed_as_tables_and_for_programs(api: SmallApi, nightcap: Run) -> None:
    listed = {
        "file": NAME, "pod": "web-1", "node": "n", "interface": "eth0", "size": 2048,
        "packets": None, "dropped": 3, "first": "A", "last": "B", "state": "growing",
    }  # fmt: skip
    api.answers["GET", f"{BASE}/files"] = [(200, {"files": [listed]})]
    head, row = nightcap("files", "dns").out.splitlines()
    assert head.split() == ["FILE", "SIZE", "PACKETS", "FIRST", "LAST", "STATE"]
    assert row.split() == [NAME, "2.0", "KiB", "-", "A", "B", "growing"]
    assert nightcap("files", "dns", "-o", "wide").out.split()[-4:] == ["web-1", "eth0", "n", "3"]
    assert nightcap("files", "dns", "-o", "name").out == f"{NAME}\n"
    assert '"size": 2048' in nightcap("files", "dns", "-o", "json").out
    gap = {"pod": "web-1", "interface": "eth0", "first": 3, "last": 7, "offset": 40, "bytes": 99}
    api.answers["GET", f"{BASE}/files"] = [(200, {"files": [listed], "missing": [gap]})]
    said = nightcap("files", "dns")
    assert len(said.out.splitlines()) == 2
    assert said.err == (
        "web-1: 99 bytes were dropped before they were shipped: segments eth0 3-7 behind byte 40\n"
    )
    api.answers["GET", f"{BASE}/files"] = [(200, {"files": []})]
    assert "no files yet" in nightcap("files", "dns").err


@pytest.mark.parametrize(
    "arguments",
    [("-f", "udp"), ("--merged", "-d", "x"), ("--from-pods", "-o", "x"), ("-d", "x", "-o", "y")],
)
def test_options_that_contradict_are_refused(
    api: SmallApi, nightcap: Run, arguments: tuple[str, ...]
) -> None:
    assert nightcap("get", "dns", *arguments).code == 2
    assert api.requests == []
