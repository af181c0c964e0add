"""`follow` against a small real HTTP server in the place of API server and retrieval."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightcap.cli import viewers
from nightcap.cli.session import Fault
from nightcap.kube import paths
from nightcap.pcap import pcapng
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_files import BASE
from tests.unit.cli.test_received import a_pcap
from tests.unit.kube.small_api import SmallApi

LIVE = f"{BASE}/live.pcapng"
FRAME = bytes.fromhex(
    "020000000001 020000000002 0800 4500002000000000 4011 0000 0a000001 0a000002"
    "1092 0035 000c 0000 61626364"
)
DEVICE = pcapng.Interface(1, 262144, "web-1/eth0")


def a_stream(*payloads: bytes) -> bytes:
    packets = [
        pcapng.pack_packet(pcapng.Packet(0, at, len(data), data), DEVICE)
        for at, data in enumerate(payloads)
    ]
    names = pcapng.pack_names(pcapng.Names((("10.0.0.1", ("web-1.shop",)),)))
    head = pcapng.pack_section(pcapng.Section()) + pcapng.pack_interface(DEVICE)
    return head + names + b"".join(packets)


def nothing(_name: str) -> None:
    return None


def a_capture(api: SmallApi, phase: str) -> None:
    path = paths.packetcapture("shop", "dns")
    api.put(path, metadata={"namespace": "shop"}, status={"phase": phase})


def test_pipe_gets_the_very_bytes(api: SmallApi, nightcap: Run, tmp_path: Path) -> None:
    a_capture(api, "Finished")
    api.answers["GET", LIVE] = [(200, a_stream(FRAME))]
    file = tmp_path / "live.pcapng"
    ran = nightcap("follow", "dns", "--pod", "web-1", "-f", "udp port 53", "-w", str(file))
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert file.read_bytes() == a_stream(FRAME)
    asked = next(query for _, path, query, _ in api.requests if path == LIVE)
    assert asked == {"pod": "web-1", "filter": "udp port 53"}
    # Standard output of a test is no terminal.
    assert nightcap("follow", "dns").out.encode("utf-8", "surrogateescape")[:4] == b"\n\r\r\n"


def test_text_is_a_line_for_each_packet(api: SmallApi, nightcap: Run) -> None:
    a_capture(api, "Capturing")
    api.answers["GET", LIVE] = [(200, a_stream(FRAME, b"short"))]
    ran = nightcap("follow", "dns", "--with", "text")
    first, second = ran.out.splitlines()
    assert first.endswith(" web-1/eth0 web-1.shop:4242 > 10.0.0.2:53 UDP, 4 bytes")
    assert second.endswith(" web-1/eth0 cut off after 5 bytes")
    # The answer ended, the capture did not.
    assert "dns goes on; end it: kubectl nightcap stop dns -n shop" in ran.err


def test_pcap_is_read_as_well() -> None:
    said = list(viewers.lines(iter([a_pcap(b"x")[:10], a_pcap(b"x")[10:]])))
    assert len(said) == 1
    assert list(viewers.lines(iter([]))) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"<html>no capture, an error page</html>", "no capture", id="other"),
        pytest.param(a_stream(FRAME)[:-3], "damaged: block at byte", id="cut"),
    ],
)
def test_what_is_no_capture_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(Fault, match=words):
        list(viewers.lines(iter([data])))


def test_lines_come_with_their_packets_and_wait_for_no_more() -> None:
    stream, given = a_stream(FRAME, FRAME), []

    def arriving() -> Iterator[bytes]:
        for at in range(0, len(stream), 7):
            given.append(at)
            yield stream[at : at + 7]

    lines = viewers.lines(arriving())
    assert next(lines)
    assert given[-1] < len(stream) - 60  # the second packet has not been asked for


def test_viewer_is_what_was_asked_for_or_what_is_there() -> None:
    found = {"tshark": "/bin/tshark", "wireshark": "/bin/wireshark"}.get

    def choose(wanted: str | None, write: str | None, terminal: bool = True) -> viewers.Viewer:
        return viewers.choose(wanted, write, terminal=terminal, find=found)

    assert choose(None, "x") == viewers.Raw("x")
    assert choose(None, None, terminal=False) == viewers.Raw("-")
    assert choose("text", None, terminal=False) == viewers.Text()
    shown = choose(None, None)
    assert isinstance(shown, viewers.Program)
    assert (shown.arguments[0], shown.has_window) == ("/bin/tshark", False)
    window = choose("wireshark", None)
    assert isinstance(window, viewers.Program)
    assert window == viewers.Program(
        ("/bin/wireshark", "-k", "-N", "mn", "-i", "-"), has_window=True
    )
    assert viewers.choose(None, None, terminal=True, find=nothing) == viewers.Text()
    with pytest.raises(Fault, match="no wireshark on your PATH; install it"):
        viewers.choose("wireshark", None, terminal=True, find=nothing)


def a_program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_program_gets_the_stream_on_its_input(
    api: SmallApi, nightcap: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_capture(api, "Finished")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    a_program(tmp_path, "tshark", f'cat > {tmp_path}/got; echo "$@" > {tmp_path}/arguments')
    api.answers["GET", LIVE] = [(200, a_stream(FRAME))]
    assert nightcap("follow", "dns", "--with", "tshark").code == 0
    assert (tmp_path / "got").read_bytes() == a_stream(FRAME)
    assert (tmp_path / "arguments").read_text().endswith("-r -\n")
    # One that is closed at once has seen enough.
    a_program(tmp_path, "tshark", "exit 0")
    api.answers["GET", LIVE] = [(200, a_stream(*[FRAME] * 5000))]
    assert nightcap("follow", "dns", "--with", "tshark").code == 0


def test_tshark_shows_pods_and_names(api: SmallApi, nightcap: Run) -> None:
    """The real one: it has to take our columns, and to know interfaces and names of the stream."""
    a_capture(api, "Finished")
    api.answers["GET", LIVE] = [(200, a_stream(FRAME, FRAME))]
    ran = nightcap("follow", "dns", "--with", "tshark")
    assert ran.code == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert [row[1:5] for row in rows] == [["web-1/eth0", "web-1.shop", "→", "10.0.0.2"]] * 2


def test_start_can_follow_and_clean_up(api: SmallApi, nightcap: Run, tmp_path: Path) -> None:
    captures = paths.packetcaptures("shop")
    path = paths.packetcapture("shop", "dns")
    made = {"metadata": {"name": "dns", "namespace": "shop", "uid": "u-1"}}
    api.answers["POST", captures] = [(201, made)]
    api.answers["PATCH", path] = api.answers["DELETE", path] = [(200, {})]
    api.answers["GET", LIVE] = [(200, a_stream(FRAME))]
    a_capture(api, "Capturing")
    started = ("start", "--all", "--name", "dns", "--follow", "--with", "text")
    went_on = nightcap(*started)
    assert (went_on.code, len(went_on.out.splitlines())) == (0, 1)
    assert "dns created" in went_on.err
    assert "dns goes on" in went_on.err
    assert "dns stopped; its files stay" in nightcap(*started, "--stop").err
    removed = nightcap(*started, "--rm")
    assert "dns deleted, with its files" in removed.err
    assert api.requests[-1][:2] == ("DELETE", path)
    assert b'"u-1"' in api.requests[-1][3]
    # Also when it cannot be shown.
    api.answers["GET", LIVE] = [(403, b"jo may not\n")]
    refused = nightcap(*started, "--rm")
    assert refused.code == 1
    assert "deleted, with its files" in refused.err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("start", "--all", "--rm"), id="rm alone"),
        pytest.param(("start", "--all", "-w", "x"), id="write alone"),
        pytest.param(("start", "--all", "--follow", "--stop", "--rm"), id="both"),
        pytest.param(("start", "--all", "--follow", "-o", "json"), id="output"),
        pytest.param(("start", "--all", "--follow", "--dry-run"), id="dry run"),
        pytest.param(("follow", "dns", "--with", "text", "-w", "x"), id="two places"),
    ],
)
def test_contradictions_are_refused_before_anything_is_made(
    api: SmallApi, nightcap: Run, arguments: tuple[str, ...]
) -> None:
    assert nightcap(*arguments).code == 2
    assert api.requests == []
