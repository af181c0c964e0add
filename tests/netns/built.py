"""The sidecar's application: the checkout's own sources, laid out as in its image."""

import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.cache import cached_part, digest_of_files

_ROOT: Final = Path(__file__).parents[2]
_PUMP: Final = _ROOT / "sidecar" / "pump.c"
PUMP_FLAGS: Final = ("-std=c11", "-Wall", "-Wextra", "-O2", "-shared", "-fPIC")
"""The Dockerfile's."""


def compile_pump(target: Path, *flags: str) -> None:
    """Build the library that the worker writes packets by."""
    command = ["gcc", *PUMP_FLAGS, *flags, "-s", "-o", str(target), str(_PUMP)]
    subprocess.run(command, check=True)


def start_script() -> Path:
    """What the dormant program starts, in a folder with everything that it needs."""

    def build(folder: Path) -> None:
        compile_pump(folder / "pump.so")
        for name in ("nightcap", "sidecar"):
            (folder / name).symlink_to(_ROOT / name)

    folder = cached_part("sidecar-app", digest_of_files(_ROOT, [_PUMP], str(_ROOT)), build)
    return folder / "sidecar" / "start.py"
