"""The commands of the documentation's pages: found, run in order, held against what pages show.

A block marked `sh` is run as it stands. In a block marked `console`, lines that begin with `$ `
are commands (lines after a backslash belong to them) and the rest is what they print: `...` stands
for anything within a line, a line `...` for any number of lines. The remark
`<!-- test: no, WHY -->` above a block leaves it out, `<!-- test: NAME -->` leaves it to the test
that asks for NAME.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_REMARK = re.compile(r"<!-- test: (?P<text>.+) -->")
_FENCE = re.compile(r"```(?P<kind>\w*)")
SHELL = ("bash", "-euo", "pipefail", "-c")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of commands.

    Attributes:
        heading: The heading that it stands below.
        kind: `sh` or `console`.
        test: Which test runs it: empty for that of the page, `no` for none.
        line: Where it begins in the page.
    """

    heading: str
    kind: str
    text: str
    test: str
    line: int

    def commands(self) -> Iterator[tuple[str, str | None]]:
        """Its commands, each with what it is to print; None where the page does not say."""
        if self.kind == "sh":
            yield self.text, None
            return
        command: list[str] = []
        output: list[str] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield "\n".join(command), "\n".join(output)
                command, output = [line[2:]], []
            elif command and not output and command[-1].endswith("\\"):
                command.append(line)
            else:
                output.append(line)
        yield "\n".join(command), "\n".join(output)


def blocks_of(page: str) -> Iterator[Block]:
    """The blocks of shell commands in a page of Markdown, in order."""
    heading, remark = "", ""
    lines = iter(enumerate(page.splitlines(), 1))
    for number, line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif match := _REMARK.fullmatch(line):
            remark = match["text"].partition(",")[0]
        elif match := _FENCE.fullmatch(line):
            inside = []
            for _, text in lines:
                if text == "```":
                    break
                inside.append(text)
            if match["kind"] in ("sh", "console"):
                yield Block(heading, match["kind"], "\n".join(inside), remark, number)
            remark = ""


def is_as_shown(shown: str, printed: str) -> bool:
    """Whether a program printed what a page shows; the width of gaps does not matter."""
    parts = []
    for line in shown.strip().splitlines():
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        words = [re.escape(part) for part in re.split(r"\.\.\.", " ".join(line.split()))]
        parts.append(".*".join(words) + r"\n")
    text = "".join(" ".join(line.split()) + "\n" for line in printed.strip().splitlines())
    return re.fullmatch("".join(parts), text) is not None


def run(
    blocks: Sequence[Block],
    folder: Path,
    environ: Mapping[str, str],
    words: Mapping[str, str],
    before: str = "",
) -> None:
    """Run blocks, each in a shell of its own, until one does not do what its page says.

    Args:
        blocks: In order.
        folder: Where commands run.
        environ: All that they see of an environment.
        words: Words of the page and what stands for them here, in commands and output.
        before: What is run in front of each command, in its shell.

    Raises:
        AssertionError: with the command, what was expected and what came.
    """
    for block in blocks:
        for command, shown in block.commands():
            done = subprocess.run(
                [*SHELL, _with(words, before + command)], cwd=folder, env=dict(environ), text=True,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=180, check=False,
            )  # fmt: skip
            where = f"line {block.line}, {block.heading!r}:\n{_with(words, command)}\n"
            said = f"{done.stdout}\n{done.stderr}"
            assert done.returncode == 0, f"{where}ended with {done.returncode}:\n{said}"
            if shown is not None and shown.strip():
                expected = _with(words, shown)
                assert is_as_shown(expected, done.stdout), (
                    f"{where}shown:\n{expected}\nsaid:\n{said}"
                )


def _with(words: Mapping[str, str], text: str) -> str:
    for word, instead in words.items():
        text = re.sub(rf"(?<![\w.]){re.escape(word)}(?![\w.])", instead, text)
    return text
