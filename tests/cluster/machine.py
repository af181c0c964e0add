"""What the cluster changes on the machine itself, and the way back.

The kubelet insists on a few kernel parameters that exist once per machine, one more is too small
for two clusters, and the programs leave entries in some folders whose place they do not let us
choose. What was there before is written down before the first process starts, once: a boot after
a crash must not take our values for the machine's. Of several clusters the first one looks, the
others copy what it saw, and the last one puts it back.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed
from tests.cluster.layout import NODES
from tests.cluster.paths import STATE, every_state_folder

# Instances of inotify that one user may have: 128 by default, of which the programs of one cluster
# take thirty, and each sleeping sidecar one.
INOTIFY = "fs/inotify/max_user_instances"
_INOTIFY_INSTANCES = 1024
# What the kubelet sets (its container manager's kernel tunables), and what we do.
KERNEL_PARAMETERS = (
    INOTIFY,
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
# Entries with a fixed name that the kubelet makes below a folder it does not let us choose.
KUBELET_PLUGINS = Path("/var/lib/kubelet/device-plugins")
KUBELET_SOCKET = KUBELET_PLUGINS / "kubelet.sock"
SHARED_FILES = (KUBELET_SOCKET, KUBELET_PLUGINS / "kubelet_internal_checkpoint")
NAMESPACES = Path("/run/netns")
# Folders that our programs make when they are missing: the shims' sockets, libcni's cache, the
# kubelet's links to logs. Deepest first, for removal.
SHARED_FOLDERS = (
    Path("/run/containerd/s"),
    Path("/run/containerd/fifo"),
    Path("/run/containerd/runc"),
    Path("/run/containerd"),
    Path("/var/lib/cni/results"),
    Path("/var/lib/cni"),
    KUBELET_PLUGINS,
    KUBELET_PLUGINS.parent,
    Path("/var/log/containers"),
    Path("/var/log/pods"),
    NAMESPACES,
)
_SYSCTL = Path("/proc/sys")


def saved_file() -> Path:
    """Where the machine's own values are written down."""
    return STATE / "machine.json"


def save() -> None:
    """Write down the machine's own values, unless an earlier boot did."""
    if saved_file().exists():
        return
    unfinished = saved_file().with_suffix(".part")
    for theirs in _saved_by_others():
        shutil.copyfile(theirs, unfinished)
        unfinished.rename(saved_file())
        return
    values = {
        name: (_SYSCTL / name).read_text().strip()
        for name in KERNEL_PARAMETERS
        if (_SYSCTL / name).exists()
    }
    missing = [str(path) for path in (*SHARED_FILES, *SHARED_FOLDERS) if not path.exists()]
    unfinished.write_text(json.dumps({"parameters": values, "missing": missing}, indent=2))
    unfinished.rename(saved_file())


def make_room() -> None:
    """Raise what is too small for several clusters; `restore` puts it back."""
    file = _SYSCTL / INOTIFY
    if int(file.read_text()) < _INOTIFY_INSTANCES:
        file.write_text(str(_INOTIFY_INSTANCES))


def restore() -> None:
    """Put the machine's own values back and remove our entries from folders shared with others."""
    _remove_shim_sockets()
    _remove_cni_results()
    _remove_log_links()
    if not saved_file().exists() or _saved_by_others():
        return
    saved = json.loads(saved_file().read_text())
    for name, value in saved.get("parameters", {}).items():
        if (_SYSCTL / name).read_text().strip() != value:
            (_SYSCTL / name).write_text(value)
    _remove_made([Path(path) for path in saved.get("missing", [])])


def _saved_by_others() -> list[Path]:
    """What other clusters of ours wrote down: they run, or were killed."""
    files = [folder / saved_file().name for folder in every_state_folder() if folder != STATE]
    return [file for file in files if file.exists()]


def _remove_made(paths: Sequence[Path]) -> None:
    """Remove what was not there before: our files, and folders unless others use them by now."""
    if NAMESPACES in paths and NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
        # iproute2 mounts the folder onto itself with the first namespace.
        with contextlib.suppress(CommandFailed):
            run(["umount", NAMESPACES])
    for path in paths:
        with contextlib.suppress(OSError):
            if path in SHARED_FILES:
                path.unlink()
            else:
                path.rmdir()


def _remove_shim_sockets() -> None:
    """A shim writes the address of its socket, below /run/containerd, into its bundle."""
    for node in NODES:
        for file in node.folder.glob("containerd/state/*/*/*/address"):
            with contextlib.suppress(OSError):
                address = file.read_text().strip().removeprefix("unix://")
                Path(address).unlink(missing_ok=True)


def _remove_cni_results() -> None:
    """Libcni notes each pod's network here; ours lie in a network namespace below our folder."""
    folder = Path("/var/lib/cni/results")
    for file in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if f"{STATE}/".encode() in file.read_bytes():
                file.unlink()


def _remove_log_links() -> None:
    folder = Path("/var/log/containers")
    for link in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if link.is_symlink() and link.readlink().is_relative_to(STATE):
                link.unlink()


def empty_state_folder() -> None:
    """Remove what is in the state folder; everything mounted below it must be gone."""
    for path in STATE.iterdir() if STATE.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
