"""The images for arm64: built from the one Dockerfile, and their programs started, under qemu.

And quicker, what their builds stand on: compiled C that runs, wheels of every pinned package.
"""

from __future__ import annotations

import json
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


def install(needed: dict[str, str]) -> None:
    if missing := packages.missing_packages(needed=needed):
        packages.install(missing)


def test_both_images_are_built_and_their_programs_start() -> None:
    """Twenty minutes on two cores, most of it an emulated compiler and pip."""
    install({**packages.NEEDED, **CROSS})
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-m", "tests.cluster.emulated"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    words = {
        "errand": (2, "linger SECONDS"),
        "dormant": (0, ""),
        "libraries": (0, "aarch64"),
        # Each has read all its code, and misses what a pod would give it.
        "webhook": (2, "NIGHTCAP_SIDECAR_IMAGE is not set"),
        "controller": (2, "no cluster to talk to"),
        "retrieval": (2, "{collector,files,gateway}"),
    }
    assert said.keys() == words.keys()
    for program, (code, text) in words.items():
        assert said[program]["code"] == code, (program, said[program])
        assert text in said[program]["said"]


def test_programs_of_the_sidecar_compile_as_in_the_image_and_run(tmp_path: Path) -> None:
    install(CROSS)
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
