"""The images for arm64, built and looked at on a machine of another kind.

`unshare --mount python -m tests.cluster.emulated` teaches the kernel, for as long as it runs, to
give arm64 programs to qemu; builds the images from the same Dockerfile with a base of that
processor; and starts in them what runs in pods. Prints one JSON object: what each program said. Ten
minutes and more: a compiler and pip run on an emulated processor.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import builder, images
from tests.cluster.commands import run, with_system_path

PROCESSOR = "arm64"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_NAME = "nightcap-arm64"
# The head of an ELF program for AArch64, as qemu's own registration has it. F: the emulator is
# opened now, so that it is found from inside any root.
_MAGIC = r"\x7f\x45\x4c\x46\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
_PYTHON = "/usr/bin/python3"
_LOAD_PUMP = (
    "import ctypes, platform; ctypes.CDLL('/nightcap/app/pump.so');"
    "from nightcap.pcap import libpcap; libpcap.load(); print(platform.machine())"
)
_PROGRAMS: dict[str, dict[str, tuple[str, ...]]] = {
    "sidecar": {
        "errand": ("/nightcap/errand",),
        "dormant": ("/nightcap/dormant", "--wait", "1s"),
        "libraries": (_PYTHON, "-c", f"import sys; sys.path[:0] = ['/nightcap/app']; {_LOAD_PUMP}"),
    },
    "control": {
        program: (_PYTHON, "-c", f"import sys, runpy; sys.path[:0] = ['/opt/nightcap', "
                  f"'/opt/packages']; runpy.run_module({program!r}, run_name='__main__')")
        for program in ("webhook", "controller", "retrieval")
    },
}  # fmt: skip


def _teach() -> None:
    """Register the emulator. The kernel forgets it when the last mount of this file system goes."""
    run(["mount", "-t", "binfmt_misc", "none", _BINFMT])
    emulator = shutil.which("qemu-aarch64-static")
    assert emulator is not None, "package qemu-user-static is missing"
    if platform.machine() != "aarch64" and not (_BINFMT / _NAME).exists():
        (_BINFMT / "register").write_text(f":{_NAME}:M::{_MAGIC}:{_MASK}:{emulator}:F")


@contextmanager
def _root_of(reference: str) -> Iterator[Path]:
    """An image's files, as a container would see them."""
    container = builder.buildah("from", "--quiet", "--pull-never", reference).split()[-1]
    try:
        yield Path(builder.buildah("mount", container).split()[-1])
    finally:
        builder.buildah("rm", container)


def main() -> None:
    """Build, start, print."""
    _teach()
    said: dict[str, Any] = {}
    # Nothing of this machine's but where `chroot` is.
    environ = {"PATH": with_system_path(os.environ)["PATH"]}
    try:
        for name, reference in images.build_for_other(PROCESSOR).items():
            with _root_of(reference) as root:
                for program, argv in _PROGRAMS[name].items():
                    done = subprocess.run(
                        ["chroot", root, *argv], capture_output=True, text=True, timeout=120,
                        check=False, env=environ,
                    )  # fmt: skip
                    output = f"{done.stdout}{done.stderr}".strip()
                    said[program] = {"code": done.returncode, "said": output[-1000:]}
    finally:
        builder.unmount_storage()
    json.dump(said, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
