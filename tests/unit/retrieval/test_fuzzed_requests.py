"""Abuse, bounded: `make fuzz` sends a hundred thousand."""

import contextlib
import random
from pathlib import Path

import pytest

from tests.fuzz.requests import (
    AMBIGUOUS,
    FILE,
    Target,
    ask,
    check_quiet,
    fuzz,
    status_of,
)
from tests.unit.retrieval.builders import CAPTURE
from tests.unit.retrieval.programs import Installation


def test_eight_hundred_bent_requests_do_no_harm(crowd: Installation) -> None:
    found = fuzz(crowd, 800, seed=7)
    # The right ones among them were answered, so the others were not refused for nothing.
    assert {"files 200", "files 403", "files 401", "collector 204", "collector 401"} <= set(found)


@pytest.mark.parametrize("program", ["files", "collector"])
@pytest.mark.parametrize("form", AMBIGUOUS)
def test_a_request_whose_end_is_ambiguous_is_refused_and_ends_the_connection(
    crowd: Installation, program: str, form: str
) -> None:
    target = Target(program, crowd.port_of(program), crowd)
    path, who = {
        "files": (f"GET /v1/namespaces/storefront/packetcaptures/dns/files/{FILE}", "reader-0"),
        "collector": (f"PATCH /v1/captures/{CAPTURE}/eth0/0", "pod-0"),
    }[program]
    head = f"{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who}\r\nUpload-Offset: 164\r\n"
    behind = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.closing(target.connect(random.Random(form))) as connection:  # noqa: S311
        answer = ask(connection, head.encode() + AMBIGUOUS[form] + behind, patience_seconds=20)
    assert status_of(answer) in (400, 411, 501), answer[:300]
    assert answer.count(b"HTTP/1.1 ") == 1
    check_quiet(crowd)


def test_the_store_has_nothing_beside_its_folders(crowd: Installation) -> None:
    outside = {path.name for path in Path(crowd.folder).iterdir()}
    outside = {name for name in outside if not name.startswith("tls")}
    assert outside <= {
        *("store", "kubeconfig", "collector.log", "collector.out", "files.log", "files.out")
    }
