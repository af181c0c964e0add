"""The cache of built parts: named by the hash of what they are built from, published whole.

A part is a folder. It is built under a temporary name and renamed when it is complete, so that an
interrupted build never leaves something that looks finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.paths import cache_folder

HASH_DIGITS = 12
_NOT_SOURCES = ("__pycache__", ".mypy_cache", ".ruff_cache")


def digest(items: Iterable[str | bytes]) -> str:
    """The short hash of a list of texts; their boundaries count, so that moving one changes it."""
    hasher = hashlib.sha256()
    for item in items:
        encoded = item.encode() if isinstance(item, str) else item
        hasher.update(len(encoded).to_bytes(8, "big"))
        hasher.update(encoded)
    return hasher.hexdigest()[:HASH_DIGITS]


def source_files(root: Path, paths: Iterable[str]) -> list[Path]:
    """Every source file at and below the given paths of `root`, sorted; missing ones left out."""
    found: set[Path] = set()
    for path in paths:
        start = root / path
        if start.is_file():
            found.add(start)
        found.update(
            file
            for file in start.rglob("*")
            if file.is_file()
            and file.suffix != ".pyc"
            and not any(part in _NOT_SOURCES for part in file.relative_to(root).parts)
        )
    return sorted(found)


def digest_of_files(root: Path, files: Iterable[Path], *also: str) -> str:
    """The hash of the files' names, modes that matter and contents, and of some words more."""
    items: list[str | bytes] = list(also)
    for file in files:
        executable = "x" if os.access(file, os.X_OK) else "-"
        items += [str(file.relative_to(root)), executable, file.read_bytes()]
    return digest(items)


@contextmanager
def build_lock(name: str = "build") -> Iterator[None]:
    """Hold the cache's lock, so that two builds of the same do not run side by side."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def part_folder(name: str, key: str) -> Path:
    """The folder of a part, whether or not it is there yet."""
    return cache_folder() / "parts" / f"{name}-{key}"


def cached_part(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of a part; `build` is called to fill it only when it is not there."""
    final = part_folder(name, key)
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
    try:
        build(unfinished)
        unfinished.chmod(0o755)
        # Somebody may have built the same meanwhile; one is as good as the other.
        if not final.is_dir():
            unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final
