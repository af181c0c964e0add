"""The table of `bench/README.md`, rendered from result lines."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- the table: python -m bench --table -->"
END: Final = "<!-- end of the table -->"
_HEAD: Final = (
    "| benchmark | ours | peer | ratio | goal | met |",
    "| --- | --- | --- | --- | --- | --- |",
)


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """All result lines of the files."""
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines() if line.strip()
    ]


def render(results: Sequence[dict[str, Any]]) -> str:
    """The table and, below it, what it was measured on."""
    rows = [_row(result) for result in results]
    machines = sorted({result["machine"] for result in results})
    return "\n".join([*_HEAD, *rows, "", *(f"Measured on: {machine}." for machine in machines)])


def _row(result: dict[str, Any]) -> str:
    point = f" ({result['point']})" if result.get("point") else ""
    cells = [
        f"`{result['name']}`{point}",
        f"{_figure(result['ours'], result.get('spread'))} {result['unit']}; n = {result['runs']}",
        _peer(result),
        "" if result["ratio"] is None else f"{result['ratio']:.2f}",
        result["goal"],
        "yes" if result["met"] else "**no**",
    ]
    return "| " + " | ".join(cells) + " |"


def _peer(result: dict[str, Any]) -> str:
    if result["peer"] is None:
        return ""
    figure = _figure(result["peer"], result.get("peer_spread"))
    return f"{figure} `{result['peer_name']}`"


def _figure(value: float, spread: Sequence[float] | None) -> str:
    if spread is None or spread[0] == spread[1]:
        return f"{value:g}"
    return f"{value:g} ({spread[0]:g} to {spread[1]:g})"


def put_into(page: Path, table: str) -> None:
    """Replace the page's table.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
