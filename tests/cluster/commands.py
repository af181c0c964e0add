"""Running programs of others: their output is kept, and shown when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import CommandFailed

# Debian's programs for root are not on everybody's PATH.
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def with_system_path(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the system's folders at the end of its PATH."""
    path = environment.get("PATH", "")
    return {**environment, "PATH": f"{path}:{SYSTEM_FOLDERS}" if path else SYSTEM_FOLDERS}


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """Run a program to its end and return what it printed on standard output.

    Args:
        argv: The program and its arguments; no shell is involved.
        cwd: Folder to run in.
        env: Variables set on top of our own.
        stdin: Text for standard input; nothing is readable there otherwise.
        timeout_seconds: The program is killed after this time.

    Raises:
        CommandFailed: it ended with another code than 0; the message has its last lines.
    """
    words = [str(word) for word in argv]
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        words,
        cwd=cwd,
        env=with_system_path({**os.environ, **(env or {})}),
        input=data if data is not None else b"",
        capture_output=True,
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        raise CommandFailed(words, done.returncode, "\n".join(output[-25:]))
    return done.stdout.decode(errors="replace")
