"""What docs/security.md promises of all programs at once."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightcap.pcap import bounded

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("certs", "controller", "retrieval", "sidecar", "webhook")
# Of the library, all that runs beside other people's data; the command line is its caller's own.
LIBRARY = ("nightcap/contract", "nightcap/kube", "nightcap/pcap")
STARTS_PROGRAMS = {"nightcap/pcap/bounded.py"}
_STARTING_MODULES = {"subprocess", "multiprocessing", "pty", "asyncio.subprocess"}
_STARTING_CALLS = ("system", "popen", "exec", "spawn", "posix_spawn")


def _modules() -> Iterator[Path]:
    for folder in (*PROGRAMS, *LIBRARY):
        yield from (ROOT / folder).rglob("*.py")


def _starts_programs(source: Path) -> bool:
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Import(names=names):
                if _STARTING_MODULES & {name.name for name in names}:
                    return True
            case ast.ImportFrom(module=str(module)):
                if module in _STARTING_MODULES:
                    return True
            case ast.Attribute(value=ast.Name(id="os"), attr=name):
                if name.startswith(_STARTING_CALLS):
                    return True
            case ast.Call(func=ast.Name(id="eval" | "exec")):
                return True
    return False


def test_no_program_starts_another_but_the_one_that_compiles_filters() -> None:
    found = {str(path.relative_to(ROOT)) for path in _modules() if _starts_programs(path)}
    assert found == STARTS_PROGRAMS


def test_a_filter_is_no_part_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    run = subprocess.run

    def noting(command: list[str], **more: Any) -> object:
        commands.append(command)
        assert not more.get("shell")
        assert more["env"] == {}
        return run(command, **more)

    monkeypatch.setattr(bounded.subprocess, "run", noting)
    assert bounded.check_filter("udp port 53") is None
    assert bounded.check_filter("udp port 5353") is None
    assert commands[0] == commands[1]


def test_whoever_may_delete_captures_is_told_what_goes_with_them() -> None:
    roles = list(yaml.safe_load_all((ROOT / "manifests/base/user-roles.yaml").read_text()))
    deleting = [
        role
        for role in roles
        for rule in role["rules"]
        if "packetcaptures" in rule["resources"] and "delete" in rule["verbs"]
    ]
    assert deleting
    for role in deleting:
        note = role["metadata"]["annotations"]["nightcap.dev/note"]
        assert "destroys its files" in note
        assert "suspend" in note


def _sections() -> Iterator[tuple[str, str]]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for text in page.read_text().split("\n## "):
            yield page.name, text


def test_pages_that_delete_a_capture_say_that_its_files_go() -> None:
    deleting = [
        (page, text)
        for page, text in _sections()
        if any(f"delete {word}" in text for word in ("pcap", "packetcapture"))
        or "nightcap rm" in text
    ]
    assert len(deleting) > 2
    for page, text in deleting:
        assert re.search(r"\bfiles?\b", text), (page, text)


def test_nobody_reads_files_by_being_admin_or_edit_of_a_namespace() -> None:
    for role in yaml.safe_load_all((ROOT / "manifests/base/user-roles.yaml").read_text()):
        labels = role["metadata"].get("labels", {})
        assert not [label for label in labels if "aggregate-to" in label], role["metadata"]["name"]
        assert "aggregationRule" not in role
