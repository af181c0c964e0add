"""What the Dockerfile needs of arm64: compiled C that runs, and wheels of every pinned package.

No whole image is built for it here: that takes an emulated Debian.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import packages
from tests.unit.sidecar.test_dormant import CROSS, EM_AARCH64

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_programs_of_the_sidecar_compile_as_in_the_image_and_run(tmp_path: Path) -> None:
    if missing := packages.missing_packages(needed=CROSS):
        packages.install(missing)
    flags = re.search(r"gcc (-std=\S+ [^\\]*-static -s) ", DOCKERFILE)
    named = re.search(r"for program in ([a-z ]+);", DOCKERFILE)
    assert flags is not None
    assert named is not None
    for program in named[1].split():
        subprocess.run(
            [
                CROSS["gcc-aarch64-linux-gnu"], *flags[1].split(), "-Werror", "-o",
                tmp_path / program, '-DWORKER_PYTHON="/usr/local/bin/python3"',
                ROOT / "sidecar" / f"{program}.c",
            ],
            check=True,
        )  # fmt: skip
        machine = (tmp_path / program).read_bytes()[18:20]
        assert int.from_bytes(machine, "little") == EM_AARCH64
    # test_dormant.py runs the other one.
    done = subprocess.run(
        [CROSS["qemu-user-static"], tmp_path / "errand"], capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, "linger SECONDS" in done.stderr) == (2, True)


def test_every_package_of_the_control_image_has_a_wheel(tmp_path: Path) -> None:
    subprocess.run(
        [
            Path(sys.executable).with_name("uv"), "pip", "install", "--dry-run", "--quiet",
            "--no-deps", "--only-binary", ":all:", "--python-version", "3.12",
            "--python-platform", "aarch64-unknown-linux-gnu", "--target", tmp_path,
            "-r", ROOT / "requirements" / "control.txt",
        ],
        check=True, timeout=300,
    )  # fmt: skip
