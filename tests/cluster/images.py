"""Builds the project's own images from its Dockerfile, without a Docker engine.

An image is named after the hash of all that it is built from. So a changed source is a new name,
which rolls out by itself, and an unchanged one is neither built nor loaded again.
"""

from __future__ import annotations

import configparser
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import base_image, build, builder
from tests.cluster.cache import build_lock, digest_of_files, source_files
from tests.cluster.errors import ClusterError
from tests.cluster.node_images import REGISTRY
from tests.cluster.paths import PROJECT, cache_folder
from tests.cluster.progress import Printer, Progress, to_stderr

BUILD_FILES = ("Dockerfile", ".dockerignore")
# Archives kept of each image, the newest: going back to an earlier source needs no build.
KEPT_ARCHIVES = 3
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class ProjectImage:
    """A target of the Dockerfile and the files that it copies."""

    name: str
    sources: tuple[str, ...]


PROJECT_IMAGES = (
    ProjectImage(
        "control",
        ("requirements/control.txt", "nightcap", "certs", "webhook", "controller", "retrieval"),
    ),
    ProjectImage(
        "sidecar", ("nightcap/__init__.py", "nightcap/contract", "nightcap/pcap", "sidecar")
    ),
    ProjectImage("demo", ("demo/app.py",)),
)
IMAGE_NAMES = tuple(image.name for image in PROJECT_IMAGES)


def image_reference(image: ProjectImage, project_root: Path = PROJECT) -> str:
    """The image's name for the sources as they are now.

    Raises:
        ClusterError: a source of the image is missing.
    """
    missing = [source for source in image.sources if not (project_root / source).exists()]
    if missing:
        raise ClusterError(
            f"image {image.name} is built from {', '.join(missing)}, which {project_root} lacks"
        )
    files = source_files(project_root, [*BUILD_FILES, *image.sources])
    key = digest_of_files(project_root, files, image.name, base_image.base_key())
    return f"{REGISTRY}/nightcap-{image.name}:{key}"


def image_archive(reference: str) -> Path:
    """Where the cache keeps the archive of a built image."""
    return cache_folder() / "images" / f"{reference.rpartition('/')[2].replace(':', '-')}.tar"


def build_images(
    project_root: Path = PROJECT,
    names: Iterable[str] = IMAGE_NAMES,
    printer: Printer = to_stderr,
) -> dict[str, str]:
    """Build the project's images that the cache does not have yet.

    Args:
        project_root: The checkout.
        names: Which of `IMAGE_NAMES`.
        printer: Takes the lines of progress.

    Returns:
        The image's short name to its full name; `image_archive` finds the file of the latter.

    Raises:
        ClusterError: a source is missing.
        MachineNotReady: before anything was touched.
        CommandFailed: a build failed; the message has its last lines.
    """
    wanted = set(names)
    images = {i: image_reference(i, project_root) for i in PROJECT_IMAGES if i.name in wanted}
    if not all(image_archive(reference).exists() for reference in images.values()):
        build.build_for_images(printer)
        # A copy, so that what is built is what its name says, also while somebody edits.
        with build_lock("images"), _snapshot(project_root, images) as copy:
            images = {image: image_reference(image, copy) for image in images}
            missing = {i: r for i, r in images.items() if not image_archive(r).exists()}
            _build(copy, missing, printer)
    for reference in images.values():
        # Recently used, so the next clean-up keeps it.
        image_archive(reference).touch()
    return {image.name: reference for image, reference in images.items()}


def archives(references: Iterable[str]) -> dict[str, Path]:
    """Full image names to their archives, as `load_images` takes them."""
    return {reference: image_archive(reference) for reference in references}


def archives_to_remove(files: Mapping[Path, float], kept: int = KEPT_ARCHIVES) -> list[Path]:
    """Archives that are older than the newest few of the same image.

    Args:
        files: Archive to the time of its last use.
        kept: How many of each image stay.
    """
    by_image: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda each: files[each], reverse=True):
        by_image.setdefault(file.name.rpartition("-")[0], []).append(file)
    return sorted(file for same in by_image.values() for file in same[kept:])


def pip_configuration(listing: str, ca_bundle: str) -> str:
    """A pip.conf for the build, from the output of `pip config list` on this machine.

    Only what says where packages come from is passed on; paths of this machine mean nothing there.
    """
    kept = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
    parser = configparser.RawConfigParser()
    parser["global"] = {"cert": ca_bundle} if ca_bundle else {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2].replace("_", "-")
        if key in kept:
            parser["global"][key] = value.strip().strip("'\"").replace("\\n", "\n")
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


@contextmanager
def _snapshot(project_root: Path, images: Iterable[ProjectImage]) -> Iterator[Path]:
    """A copy of all that the images are built from, with its times, so that layers are reused."""
    names = {*BUILD_FILES, *(source for image in images for source in image.sources)}
    with tempfile.TemporaryDirectory(prefix="nightcap-images-") as folder:
        copy = Path(folder)
        for file in source_files(project_root, names):
            target = copy / file.relative_to(project_root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        yield copy


def _build(project_root: Path, images: Mapping[ProjectImage, str], printer: Printer) -> None:
    builder.limit_storage()
    base = base_image.base_reference()
    has_base = builder.has_image(base)
    progress = Progress("images", len(images) + (not has_base), printer)
    if not has_base:
        with progress.part("base image"):
            builder.import_base(base)
    try:
        with _builder_secrets() as secrets:
            for image, reference in images.items():
                with progress.part(reference):
                    _build_one(project_root, image, reference, base, secrets)
    finally:
        builder.unmount_storage()
    progress.finish("images are in the cache")


def _build_one(
    project_root: Path, image: ProjectImage, reference: str, base: str, secrets: list[str]
) -> None:
    _build_layers(project_root, image.name, reference, base, secrets)
    archive = image_archive(reference)
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    builder.buildah("push", "--quiet", reference, f"docker-archive:{unfinished}:{reference}")
    unfinished.rename(archive)
    uses = {file: file.stat().st_mtime for file in archive.parent.glob("*.tar")}
    for old in archives_to_remove(uses):
        old.unlink()


def build_for_other(processor: str, printer: Printer = to_stderr) -> dict[str, str]:
    """Build what pods and installations run, for a processor whose programs run here emulated.

    Args:
        processor: In Debian's and Docker's word, such as `arm64`.
        printer: Takes the lines of progress.

    Returns:
        The image's short name to its full name in the builder's storage.
    """
    base = base_image.base_reference(processor)
    wanted = [image.name for image in PROJECT_IMAGES if image.name != "demo"]
    references = {name: f"{REGISTRY}/nightcap-{name}:{processor}" for name in wanted}
    progress = Progress(processor, 1 + len(wanted), printer)
    with build_lock("images"), _snapshot(PROJECT, PROJECT_IMAGES) as copy:
        builder.limit_storage()
        with progress.part("base image"):
            if not builder.has_image(base):
                builder.import_base(base, processor)
        with _builder_secrets() as secrets:
            for name, reference in references.items():
                with progress.part(reference):
                    _build_layers(copy, name, reference, base, secrets, processor)
    return references


def _build_layers(
    project_root: Path,
    target: str,
    reference: str,
    base: str,
    secrets: list[str],
    processor: str = "",
) -> None:
    builder.buildah(
        "bud",
        "--layers",
        "--isolation=chroot",
        "--pull-never",
        *builder.for_processor(processor),
        f"--build-arg=BASE={base}",
        *secrets,
        f"--target={target}",
        f"--tag={reference}",
        f"--file={project_root / 'Dockerfile'}",
        str(project_root),
    )


@contextmanager
def _builder_secrets() -> Iterator[list[str]]:
    """This machine's authorities and package index for the build's steps, and not for the image."""
    bundle = Path(os.environ.get("SSL_CERT_FILE", "") or _CA_BUNDLE)
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(pip_configuration(listing, "/run/secrets/ca" if bundle.is_file() else ""))
        file.flush()
        secrets = [f"--secret=id=pip.conf,src={file.name}"]
        if bundle.is_file():
            secrets.append(f"--secret=id=ca,src={bundle}")
        yield secrets
