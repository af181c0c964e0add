"""Images on the nodes: what is there, and bringing in what is not; and the pause image.

An image comes as a file in Docker's archive format. Its name carries the hash of what it was built
from, so the same name is the same image and is never loaded twice.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import programs
from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed
from tests.cluster.layout import NODES, Node
from tests.cluster.paths import MARK, STATE

REGISTRY = "registry.local"


def pause_reference() -> str:
    """The pause image's name; the part's folder carries the hash of its source."""
    return f"{REGISTRY}/nightcap-pause:{programs.pause_folder().name.rpartition('-')[2]}"


def pause_archive() -> Path:
    """The pause image's archive, in the cache beside the program."""
    archive = programs.pause_folder() / "image.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".part")
        unfinished.write_bytes(
            single_program_archive(pause_reference(), (archive.parent / "pause").read_bytes())
        )
        unfinished.rename(archive)
    return archive


def single_program_archive(reference: str, program: bytes) -> bytes:
    """An image archive with one static program at /pause and nothing else."""
    layer = _tar({"pause": program}, mode=0o755)
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    name = hashlib.sha256(configuration).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "manifest.json": json.dumps(manifest).encode(),
            f"{name}.json": configuration,
            "layer.tar": layer,
        },
        mode=0o644,
    )


def runtime_answers(node: Node) -> bool:
    """Whether the node's containerd is up and serves Kubernetes."""
    if not node.containerd_socket.exists():
        return False
    try:
        return "io.containerd.grpc.v1" in _ctr(node, "plugins", "ls", "id==cri")
    except CommandFailed:
        return False


def on_node(node: Node) -> set[str]:
    """The names of the images that a node has."""
    return set(_ctr(node, "images", "ls", "-q").split())


def load_images(archives: Mapping[str, Path], nodes: Iterable[Node] = NODES) -> list[str]:
    """Bring images into the nodes, all nodes at once; what is there is left alone.

    Args:
        archives: Image name to archive file.
        nodes: Where to.

    Returns:
        The names that at least one node did not have.
    """
    targets = list(nodes)
    with ThreadPoolExecutor(max_workers=len(targets)) as pool:
        loaded = pool.map(lambda node: _load(node, archives), targets)
        return sorted(set().union(*loaded))


def _load(node: Node, archives: Mapping[str, Path]) -> set[str]:
    missing = set(archives) - on_node(node)
    for name in sorted(missing):
        _ctr(node, "images", "import", "--digests=false", str(archives[name]))
    return missing


def _ctr(node: Node, *words: str) -> str:
    # The mark, because an import that outlives a kill holds mounts of ours.
    return run(
        ["ctr", "--address", node.containerd_socket, "--namespace", "k8s.io", *words],
        env={MARK: str(STATE)},
    )


def _tar(files: Mapping[str, bytes], *, mode: int) -> bytes:
    """A tar file of a few files, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
