"""The base image of the project's images, made by debootstrap from the machine's own mirror.

It stands in for the public `python:3.12-slim`, which needs a registry that a test machine may not
reach: Debian's own python3, libpcap and the certificates of the public authorities.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.apt_sources import (
    base_source,
    codename,
    machine_sources,
    release_sources,
)
from tests.cluster.cache import cached_part, digest, part_folder
from tests.cluster.commands import run
from tests.cluster.errors import MachineNotReady

# After bookworm the library's package has a new name; the file in it has not.
_PCAP_BY_RELEASE = {"bookworm": "libpcap0.8"}
_PCAP = "libpcap0.8t64"

# Nothing in a container reads these, and every node unpacks them. A path ends in / when only its
# content goes.
UNUSED = (
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "var/cache/apt/",
    "var/cache/debconf/",
    "var/lib/apt/lists/",
    "var/log/",
)
# Debootstrap copies these from the machine; they are nobody else's business.
OF_THE_MACHINE = ("etc/hostname", "etc/resolv.conf")


def release() -> str:
    """The code name of the Debian release that the base image is made of: this machine's."""
    return codename(Path("/etc/os-release").read_text())


def included(codename: str) -> tuple[str, ...]:
    """The packages of the base image on top of a minimal Debian of that release."""
    return ("ca-certificates", _PCAP_BY_RELEASE.get(codename, _PCAP), "python3")


def base_key(processor: str = "") -> str:
    """The hash of what decides the base image. The mirror's address is not in it.

    Args:
        processor: In Debian's word, such as `arm64`; empty for this machine's.
    """
    other = [processor] if processor else []
    return digest([release(), *included(release()), *UNUSED, *OF_THE_MACHINE, *other])


def base_reference(processor: str = "") -> str:
    """The name under which the build's own storage holds the base image."""
    return f"registry.local/nightcap-base:{base_key(processor)}"


def is_built() -> bool:
    """Whether the cache has the base image's file system."""
    return part_folder("base", base_key()).is_dir()


def build_base(processor: str = "") -> Path:
    """Make the file system of the base image, unless the cache has it; returns its tar file.

    Args:
        processor: As in `base_key`; programs of another one have to run here (see `emulated`).
    """
    made = cached_part("base", base_key(processor), lambda folder: _bootstrap(folder, processor))
    return made / "rootfs.tar"


def _bootstrap(folder: Path, processor: str) -> None:
    source = base_source(machine_sources(), release())
    if source is None:
        raise MachineNotReady(
            [
                f"apt's sources name no mirror for {release() or 'this release'} with component "
                "main; add one below /etc/apt/sources.list.d/"
            ]
        )
    root = folder / "rootfs"
    run(
        [
            "debootstrap",
            "--variant=minbase",
            *([f"--arch={processor}"] if processor else []),
            f"--include={','.join(included(release()))}",
            source.suite,
            root,
            source.uri,
        ],
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )
    _carry_sources(root)
    _remove_unused(root)
    # /dev holds what mknod made; a container gets its own.
    run(["tar", "-C", root, "--exclude=./dev/*", "-cf", folder / "rootfs.tar", "."])
    shutil.rmtree(root)


def _carry_sources(root: Path) -> None:
    """Let `apt-get` inside the build use the machine's sources for updates and fixes too."""
    lines = [
        f"deb {source.uri} {source.suite} {' '.join(source.components)}"
        for source in release_sources(machine_sources(), release())
    ]
    (root / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")


def _remove_unused(root: Path) -> None:
    for name in OF_THE_MACHINE:
        (root / name).unlink(missing_ok=True)
    for name in UNUSED:
        for path in (root / name).iterdir() if (root / name).is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
