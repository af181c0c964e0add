"""Paths that name no API group, where a capture of that name is in both."""

import io
import zipfile

import pytest
from werkzeug.test import TestResponse

from nightcap.contract.segments import StreamKey
from retrieval.store.base import StreamMeta
from tests.unit.retrieval.asking import BASE, DELETIONS, DOWNLOADS, OURS, Files, allow, put
from tests.unit.retrieval.builders import (
    CALICO,
    CAPTURE,
    POD,
    STREAM,
    a_calico_capture,
    a_capture,
    a_pcap,
)

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
