"""Writes answers: tables for people, JSON, YAML and names for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from nightcap.cli.words import KIND, Line, Mark

_LOOKS = {
    Mark.OK: ("ok", "green"),
    Mark.NOTE: ("note", "yellow"),
    Mark.FAULT: ("fault", "red"),
}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl writes them: as wide as needed, three spaces between."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def dump(value: Any, output: str) -> str:
    """An object or list as `json` or `yaml`."""
    if output == "json":
        return json.dumps(value, indent=4)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=False)).rstrip()


def a_list(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several objects as one, as `kubectl get -o json` has it."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(items)}


def written(capture: dict[str, Any], how: str | None, done: str) -> None:
    """Say that a capture was written, or would have been: kubectl's line, or what `-o` asks for."""
    metadata = capture["metadata"]
    name = metadata.get("name") or f"{metadata.get('generateName', '')}…"
    if how in (None, "name"):
        click.echo(f"{KIND}/{name}" + (f" {done}" if how is None else ""))
    else:
        click.echo(dump(capture, str(how)))


def line(said: Line) -> str:
    """A statement with its mark, and below it what to do; click drops colours in a pipe."""
    word, colour = _LOOKS[said.mark]
    text = f"{click.style(word.ljust(6), fg=colour, bold=True)} {said.text}"
    return f"{text}\n       -> {said.advice}" if said.advice else text


def note(sentence: str) -> None:
    """Something for the person beside the answer: it never mixes with the answer."""
    click.echo(sentence, err=True)
