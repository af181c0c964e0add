"""The Debian packages that the cluster needs: which are missing, and installing those."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.cluster.commands import run, with_system_path

# Package and a file that proves it is there; a program is looked up on PATH. Looking at the files
# and not at the package database lets a machine that has them from elsewhere pass.
NEEDED: dict[str, str] = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "debootstrap": "debootstrap",
    "ethtool": "ethtool",
    "gcc": "gcc",
    "ipset": "ipset",
    "iproute2": "ip",
    "iptables": "iptables",
    "libc6-dev": "/usr/include/stdio.h",
    "libc-bin": "ldconfig",
    "mount": "umount",
    "nftables": "nft",
    "runc": "runc",
    "socat": "socat",
    "util-linux": "nsenter",
}


def missing_packages(
    exists: Callable[[str], bool] | None = None, needed: dict[str, str] | None = None
) -> list[str]:
    """The needed packages that are not there, sorted."""
    is_there = exists or _exists
    return sorted(name for name, proof in (needed or NEEDED).items() if not is_there(proof))


def can_install() -> bool:
    """Whether this machine lets us install packages: root, and Debian's tool."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Iterable[str]) -> None:
    """Install packages without their recommendations and without asking anybody.

    Services of theirs (containerd brings one) start or not as the machine has it; ours is another
    process with folders of its own.
    """
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=environment)
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], env=environment)


def _exists(proof: str) -> bool:
    if proof.startswith("/"):
        return Path(proof).exists()
    return shutil.which(proof, path=with_system_path(os.environ)["PATH"]) is not None
