"""A bar that shows on a terminal how far a download is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from nightcap.cli import words

_EVERY_SECONDS: Final = 0.1
_BAR_CELLS: Final = 24


@contextmanager
def progress(title: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far a download is; nothing is left of it."""
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    shown_at = 0.0

    def tell(size: int) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= _EVERY_SECONDS:
            shown_at = now
            click.echo(f"\r\x1b[K{bar(title, size, length)}", nl=False, err=True)

    try:
        yield tell
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def bar(title: str, size: int, length: int | None) -> str:
    """How far it is, in one line; without a length only how much has come."""
    if not length:
        return f"{title}  {words.human_size(size)}"
    done = size * _BAR_CELLS // length
    cells = "#" * done + "." * (_BAR_CELLS - done)
    return f"{title}  [{cells}] {words.human_size(size)} of {words.human_size(length)}"
