"""Programs that benchmarks need, compiled on demand into the cache."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.cache import cached_part, digest_of_files, source_files
from tests.netns.built import compile_pump

ROOT: Final = Path(__file__).resolve().parents[1]
_GENERATOR: Final = ROOT / "bench" / "generator.c"
_SIDECAR_SOURCES: Final = ("nightcap/__init__.py", "nightcap/contract", "nightcap/pcap", "sidecar")


def generator() -> Path:
    """The packet generator."""
    key = digest_of_files(ROOT, [_GENERATOR])

    def build(folder: Path) -> None:
        _compile(_GENERATOR, folder / "generator", "-O2", "-Wall", "-Wextra")

    return cached_part("bench-generator", key, build) / "generator"


def nginx() -> Path | None:
    """The machine's nginx, else Debian's package unpacked into the cache; None on other systems.

    It is not installed: its service would start and take port 80.
    """
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found or not shutil.which("apt-get"):
        return Path(found) if found else None

    def build(folder: Path) -> None:
        subprocess.run(["apt-get", "download", "-q", "nginx"], cwd=folder, check=True, stdout=2)
        [package] = folder.glob("*.deb")
        subprocess.run(["dpkg", "--extract", package, folder], check=True)

    return cached_part("bench-nginx", "debian", build) / "usr" / "sbin" / "nginx"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The sidecar as it lies in the image: dormant program, worker, compiled files.

    Attributes:
        python: The interpreter that the worker runs on.
    """

    dormant: Path
    script: Path
    python: str


def sidecar() -> Sidecar:
    """Lay the sidecar out by the Dockerfile's own rules.

    Not from the checkout: without the compiled files that an image has, each start would compile.
    """
    # As in the image, not a virtual environment's.
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable
    key = digest_of_files(ROOT, source_files(ROOT, _SIDECAR_SOURCES), python)

    def build(folder: Path) -> None:
        _compile(
            ROOT / "sidecar" / "dormant.c", folder / "dormant",
            "-std=c11", "-Os", "-static", "-s", f'-DWORKER_PYTHON="{python}"',
        )  # fmt: skip
        (folder / "app").mkdir()
        compile_pump(folder / "app" / "pump.so")
        for source in source_files(ROOT, _SIDECAR_SOURCES):
            target = folder / "app" / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        subprocess.run(
            [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "app"],
            cwd=folder,
            check=True,
            env={},
        )

    folder = cached_part("bench-sidecar", key, build)
    return Sidecar(folder / "dormant", folder / "app" / "sidecar" / "start.py", python)


def _compile(source: Path, target: Path, *flags: str) -> None:
    subprocess.run(["gcc", *flags, "-o", target, source], check=True)
