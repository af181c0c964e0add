"""Builds all that a boot needs, downloads beside builds; what the cache has is not built again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import (
    base_image,
    node_images,
    packages,
    preflight,
    programs,
    toolchain,
)
from tests.cluster.cache import build_lock
from tests.cluster.paths import cache_folder
from tests.cluster.progress import Printer, Progress

_PACKAGES = "Debian packages"
_BASE = "base image (debootstrap)"
_PAUSE = "pause image"


def missing_parts(go_parts: Sequence[programs.GoPart] = programs.GO_PARTS) -> list[str]:
    """What has to be made before a boot, in words."""
    missing = [_PACKAGES] if packages.missing_packages() else []
    missing += [part.name for part in go_parts if not programs.is_built(part)]
    if not programs.pause_folder().is_dir():
        missing.append(_PAUSE)
    if not base_image.is_built():
        missing.append(_BASE)
    return missing


def build_for_cluster(printer: Printer) -> None:
    """Install and build what is missing for a boot, and for the images that follow it.

    Raises:
        MachineNotReady: before anything is touched.
        CommandFailed: a build failed; the message has its last lines.
    """
    _build(missing_parts, printer)


def build_for_tests(printer: Printer) -> None:
    """Install and build what is missing for the tests: a boot, and what else takes long to build.

    Before the tests, as each of them has five minutes, its fixtures included.

    Raises:
        MachineNotReady: before anything is touched.
        CommandFailed: a build failed; the message has its last lines.
    """
    _build(lambda: missing_parts(programs.TESTED), printer)


def build_for_images(printer: Printer) -> None:
    """Install and build only what images need: the tools and their base.

    Raises:
        MachineNotReady: before anything is touched.
        CommandFailed: a build failed; the message has its last lines.
    """
    _build(lambda: [part for part in missing_parts() if part in (_PACKAGES, _BASE)], printer)


def _build(find_missing: Callable[[], list[str]], printer: Printer) -> None:
    wanted = find_missing()
    if not wanted:
        return
    needs_go = any(part.name in wanted for part in programs.TESTED)
    preflight.check_to_build(cache_folder(), needs_go=needs_go)
    with build_lock():
        # Another build may have made it all while we waited for the lock.
        missing = find_missing()
        go_missing = [part for part in programs.TESTED if part.name in missing]
        progress = Progress("build", len(missing), printer)
        with ThreadPoolExecutor(max_workers=2) as pool:
            # One thread compiles and has both processors most of the time; the other one waits
            # for the network most of the time.
            jobs = [
                pool.submit(_build_programs, progress, go_missing),
                pool.submit(_build_from_packages, progress, missing),
            ]
            for job in jobs:
                job.result()
        progress.finish(f"built: {', '.join(missing)}")


def _build_programs(progress: Progress, parts: list[programs.GoPart]) -> None:
    if not parts:
        return
    go = toolchain.find_go(toolchain.needed_version(part.go_mod for part in parts))
    with ThreadPoolExecutor(max_workers=1) as downloads:
        # The small part compiles first, while the modules of the large one come in.
        order = sorted(parts, key=lambda part: part is programs.KUBERNETES)
        fetched = {
            part.name: downloads.submit(programs.download_modules, part, go) for part in order
        }
        for part in order:
            with progress.part(f"{part.name} (Go)"):
                fetched[part.name].result()
                programs.build_go_part(part, go)


def _build_from_packages(progress: Progress, missing: list[str]) -> None:
    steps: list[tuple[str, Callable[[], object]]] = [
        (_PACKAGES, _install_packages),
        (_PAUSE, _build_pause),
        (_BASE, base_image.build_base),
    ]
    for name, step in steps:
        if name in missing:
            with progress.part(name):
                step()


def _install_packages() -> None:
    packages.install(packages.missing_packages())


def _build_pause() -> Path:
    programs.build_pause()
    return node_images.pause_archive()
