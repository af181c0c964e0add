"""The programs of the cluster, built here from Go modules, and the pause program from C.

Each folder below `parts/` is a Go module of its own: a go.mod that names the exact versions and a
go.sum that proves them. What a part is built from decides its key in the cache.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import cached_part, digest_of_files, part_folder, source_files
from tests.cluster.commands import run
from tests.cluster.paths import PARTS

_PAUSE_SOURCE = PARTS / "pause" / "pause.c"
PAUSE_COMPILE = ("gcc", "-Os", "-static", "-s")


@dataclass(frozen=True, slots=True)
class GoPart:
    """A Go module below `parts/` and what to build of it."""

    name: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return PARTS / self.name

    @property
    def go_mod(self) -> Path:
        return self.folder / "go.mod"


# `tool` stands for all that the go.mod lists as tools: one build compiles what they share once.
KUBERNETES = GoPart(
    name="kubernetes",
    packages=("tool",),
    programs=(
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "kubectl",
        "kubelet",
    ),
)
# The lowest minor that we promise to work with, for tests/apiserver alone: no boot needs it.
KUBERNETES_OLDEST = GoPart(
    name="kubernetes-oldest", packages=("tool",), programs=("kube-apiserver",)
)
ETCD = GoPart(name="etcd", packages=("go.etcd.io/etcd/server/v3",), programs=("etcd",))
DNS = GoPart(name="dns", packages=(".",), programs=("dns",))
GO_PARTS = (KUBERNETES, ETCD, DNS)
"""What a boot needs."""

# An S3-speaking server, for the tests of retrieval's object store alone.
VERSITYGW = GoPart(name="versitygw", packages=("tool",), programs=("versitygw",))

TESTED = (*GO_PARTS, VERSITYGW)
"""What `make test` needs."""

# Nodes and pods that nobody runs, for tests and benchmarks at scale alone.
# 1.11 is the last release whose programs are in a module that can be fetched as one.
CERT_MANAGER = GoPart(
    name="cert-manager", packages=("tool",), programs=("cainjector", "controller")
)
KWOK = GoPart(name="kwok", packages=("tool",), programs=("kwok",))


def required_version(go_mod: str, module: str) -> str:
    """The version that a go.mod requires of a module, such as `v1.35.4`."""
    match = re.search(rf"\b{re.escape(module)} (v\S+)", go_mod)
    if match is None:
        raise ValueError(f"go.mod requires no {module}")
    return match[1]


def version_flags(kubernetes_version: str) -> str:
    """Linker flags that tell the Kubernetes programs who they are; else they say v0.0.0."""
    major, minor = kubernetes_version.lstrip("v").split(".")[:2]
    values = {
        "gitVersion": kubernetes_version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        f"-X {package}.{name}={value}" for package in packages for name, value in values.items()
    )


def build_flags(part: GoPart) -> list[str]:
    """The flags of `go build`: no debug data, no paths of this machine."""
    linker = "-s -w"
    if part in (KUBERNETES, KUBERNETES_OLDEST):
        version = required_version(part.go_mod.read_text(), "k8s.io/kubernetes")
        linker = f"{linker} {version_flags(version)}"
    # -mod=readonly: a build that wants another go.sum must fail and not mend it silently.
    return ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", linker]


def go_part_key(part: GoPart) -> str:
    """The hash of everything that decides what the part's programs are."""
    files = source_files(PARTS, [part.name])
    return digest_of_files(PARTS, files, *build_flags(part), *part.packages)


def is_built(part: GoPart) -> bool:
    """Whether the cache has the part."""
    return part_folder(part.name, go_part_key(part)).is_dir()


def program(part: GoPart, name: str) -> Path:
    """Where a built program lies."""
    return part_folder(part.name, go_part_key(part)) / name


def download_modules(part: GoPart, go: Path, *modules: str) -> None:
    """Fetch a part's modules (all, or those named) into Go's own cache, ahead of its build."""
    run([go, "mod", "download", *modules], cwd=part.folder, env=_go_environment())


def build_go_part(part: GoPart, go: Path) -> Path:
    """Build a part into the cache, unless it is there; returns its folder."""

    def build(folder: Path) -> None:
        # The slash makes `go build` write all programs below the folder, also a single one.
        run(
            [go, "build", *build_flags(part), "-o", f"{folder}/", *part.packages],
            cwd=part.folder,
            env=_go_environment(),
        )
        _rename_single_program(part, folder)

    return cached_part(part.name, go_part_key(part), build)


def pause_folder() -> Path:
    """The pause program's folder in the cache, whether or not it is there yet."""
    return part_folder("pause", digest_of_files(PARTS, [_PAUSE_SOURCE], *PAUSE_COMPILE))


def build_pause() -> Path:
    """Compile the static pause program into the cache, unless it is there; returns its folder."""

    def build(folder: Path) -> None:
        run([*PAUSE_COMPILE, "-o", folder / "pause", _PAUSE_SOURCE])

    name, _, key = pause_folder().name.partition("-")
    return cached_part(name, key, build)


def _go_environment() -> dict[str, str]:
    # GOTOOLCHAIN=local: the toolchain was chosen already; no build downloads another one.
    # GOWORK=off: a go.work of the user's somewhere above must not take part.
    return {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}


def _rename_single_program(part: GoPart, folder: Path) -> None:
    """Go names a program after its import path; give it the name that we call it by."""
    built = sorted(folder.iterdir())
    if len(part.programs) == 1 and len(built) == 1:
        built[0].rename(folder / part.programs[0])
