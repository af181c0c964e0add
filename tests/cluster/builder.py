"""Buildah on a storage of our own, so that the machine's images and settings stay out of it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.cluster import base_image, cleanup
from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed
from tests.cluster.paths import cache_folder

MOST_STORED_BYTES = 8 * 2**30


def storage_folder() -> Path:
    """Where layers and buildah's settings are kept."""
    return cache_folder() / "containers"


def buildah(*words: str) -> str:
    """Run buildah on our storage, with no configuration of the machine's; returns its output."""
    storage = storage_folder()
    storage.mkdir(parents=True, exist_ok=True)
    # Every image here was made here.
    policy = storage / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (storage / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
    # Else it makes a folder for networks below /etc.
    (storage / "containers.conf").write_text(
        f'[network]\nnetwork_config_dir = "{storage / "networks"}"\n'
    )
    (storage / "registries.conf").write_text("unqualified-search-registries = []\n")
    subcommand, *rest = words
    signature_policy = (
        [f"--signature-policy={policy}"] if subcommand in ("bud", "push", "from") else []
    )
    return run(
        [
            "buildah",
            f"--root={storage / 'storage'}",
            f"--runroot={storage / 'run'}",
            "--storage-driver=overlay",
            f"--registries-conf={storage / 'registries.conf'}",
            subcommand,
            *signature_policy,
            *rest,
        ],
        env={
            "CONTAINERS_CONF": str(storage / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(storage / "storage.conf"),
        },
    )


def for_processor(processor: str) -> list[str]:
    """Arguments of `bud` for a processor in Docker's word, which is Debian's for those we build."""
    return [f"--arch={processor}"] if processor else []


def has_image(reference: str) -> bool:
    """Whether the storage has an image of that name."""
    try:
        buildah("inspect", "--type=image", reference)
    except CommandFailed:
        return False
    return True


def unmount_storage() -> None:
    """Buildah mounts its storage onto itself and leaves it so."""
    points = cleanup.mounts_below(cleanup.MOUNTS_FILE.read_text(), storage_folder())
    if points:
        run(["umount", "--lazy", "--no-canonicalize", *points])


def limit_storage() -> None:
    """Start afresh when layers of old builds have become too many; it is a cache."""
    storage = storage_folder() / "storage"
    if storage.is_dir() and _bytes_below(storage) > MOST_STORED_BYTES:
        unmount_storage()
        shutil.rmtree(storage_folder())


def _bytes_below(folder: Path) -> int:
    return int(run(["du", "--summarize", "--bytes", folder]).split()[0])


def import_base(reference: str, processor: str = "") -> None:
    """Make an image of the debootstrapped file system; ADD unpacks it.

    Args:
        reference: Its name.
        processor: As in `base_image.base_key`.
    """
    rootfs = base_image.build_base(processor)
    dockerfile = f"FROM scratch\nADD {rootfs.name} /\n"
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(dockerfile)
        file.flush()
        buildah(
            "bud",
            "--isolation=chroot",
            *for_processor(processor),
            f"--tag={reference}",
            f"--file={file.name}",
            str(rootfs.parent),
        )
