"""File systems that are soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Let a folder be a file system of its own for a while; needs root.

    Args:
        folder: Is there, and what it holds is hidden meanwhile.
        size: As mount(8) takes it, such as `400k`.
    """
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        # A test that failed may have files open there.
        subprocess.run(["umount", "--lazy", folder], check=True)
