"""What the pages and the help tell people to type is what the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from nightcap.cli.commands import LazyGroup
from nightcap.cli.program import cli

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text()
assert isinstance(cli, LazyGroup)
COMMANDS = cli.all_commands()
HELP = "\n".join(command.help or "" for command in COMMANDS.values())


def told(text: str) -> list[str]:
    return re.findall(r"^\s*(?:source <\()?kubectl nightcap ([^\n)]*)", text, re.MULTILINE)


def parse(line: str) -> click.Context:
    words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)
    root = cli.make_context("kubectl nightcap", words)
    name, command, rest = cli.resolve_command(root, [*root._protected_args, *root.args])
    assert command is not None
    return command.make_context(name, rest, parent=root)


@pytest.mark.parametrize(
    "line", sorted({*told(PAGE), *told((ROOT / "README.md").read_text()), *told(HELP)})
)
def test_told_command_is_understood(line: str) -> None:
    parse(line)


def test_unknown_option_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse("get dns --no-such-option")


def test_page_and_help_have_an_example_of_every_command() -> None:
    for name in COMMANDS:
        assert re.search(rf"^kubectl nightcap {name}\b|<\(kubectl nightcap {name}\b", PAGE, re.M)
    for name, command in COMMANDS.items():
        assert f"kubectl nightcap {name}" in (command.help or "")
