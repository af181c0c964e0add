"""What the machine must have, asked before anything is touched.

Every fault names what was found, what is needed and what to do.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster import machine, packages, programs, toolchain
from tests.cluster.apt_sources import base_source, codename, machine_sources
from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed, MachineNotReady
from tests.cluster.layout import HOST_LINK, NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK
from tests.cluster.paths import every_state_folder

# Feature of the kernel and a path that proves it.
KERNEL_FEATURES: Mapping[str, str] = {
    "network namespaces (CONFIG_NET_NS)": "/proc/self/ns/net",
    "mount namespaces (CONFIG_NAMESPACES)": "/proc/self/ns/mnt",
    "pid namespaces (CONFIG_PID_NS)": "/proc/self/ns/pid",
    "cgroups (CONFIG_CGROUPS)": "/proc/cgroups",
    "bridge netfilter (CONFIG_BRIDGE_NETFILTER; try: modprobe br_netfilter)": (
        "/proc/sys/net/bridge/bridge-nf-call-iptables"
    ),
    "connection tracking (CONFIG_NF_CONNTRACK; try: modprobe nf_conntrack)": (
        "/proc/sys/net/netfilter/nf_conntrack_max"
    ),
}
FREE_BYTES_TO_BUILD = 8 * 2**30
FREE_BYTES_TO_BOOT = 2 * 2**30


def check_to_boot() -> None:
    """Refuse a machine that cannot run the cluster, packages apart.

    Raises:
        MachineNotReady: lists all faults.
    """
    _refuse(
        [
            *root_faults(os.geteuid()),
            *architecture_faults(platform.system(), platform.machine()),
            *kernel_faults(),
            *network_faults(Path("/proc/net/route").read_text()),
            *kubelet_faults(machine.KUBELET_SOCKET),
            *disk_faults(shutil.disk_usage("/var/lib").free, FREE_BYTES_TO_BOOT, "/var/lib"),
        ]
    )


def check_to_build(cache: Path, *, needs_go: bool) -> None:
    """Refuse a machine that cannot build the parts: packages, apt's sources, network, room.

    Raises:
        MachineNotReady: lists all faults.
    """
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    _refuse(
        [
            *root_faults(os.geteuid()),
            *package_faults(packages.missing_packages(), can_install=packages.can_install()),
            *apt_faults(),
            *(download_faults() if needs_go else []),
            *disk_faults(shutil.disk_usage(existing).free, FREE_BYTES_TO_BUILD, str(existing)),
        ]
    )


def root_faults(user_id: int) -> list[str]:
    """Root is needed for namespaces, mounts and cgroups."""
    if user_id == 0:
        return []
    return [f"user id is {user_id}; namespaces, mounts and cgroups need root: run it with sudo"]


def architecture_faults(system: str, processor: str) -> list[str]:
    """The cluster runs on Linux; the images' archives say amd64."""
    if system == "Linux" and processor == "x86_64":
        return []
    return [
        f"machine is {system} on {processor}; the cluster needs Linux on x86_64: {_OWN_CLUSTER}"
    ]


def package_faults(missing: Iterable[str], *, can_install: bool) -> list[str]:
    """Missing packages matter only where we cannot install them ourselves."""
    names = " ".join(missing)
    if not names or can_install:
        return []
    return [f"missing Debian packages: {names}; install them: apt-get install {names}"]


def kernel_faults() -> list[str]:
    """Look for every kernel feature; those that show in no file are tried, and undone."""
    faults = [
        f"the kernel lacks {feature} ({path} does not exist)"
        for feature, path in KERNEL_FEATURES.items()
        if not Path(path).exists()
    ]
    if not _has_file_system("overlay"):
        faults.append("the kernel lacks overlay (not in /proc/filesystems; try: modprobe overlay)")
    if os.geteuid() == 0:
        faults += _trial_faults()
    return faults


def network_faults(route_table: str) -> list[str]:
    """The cluster's address ranges must be free; `route_table` is the text of /proc/net/route."""
    wanted = (NODE_NETWORK, SERVICE_NETWORK, POD_NETWORK)
    return [
        f"the machine routes {taken} to {link}, which overlaps the cluster's {range_}; "
        f"remove that route for the time of the cluster, or {_OWN_CLUSTER}"
        for link, taken in routes(route_table)
        for range_ in wanted
        if link != HOST_LINK and taken.prefixlen > 0 and taken.overlaps(range_)
    ]


def routes(route_table: str) -> list[tuple[str, IPv4Network]]:
    """Link and destination of every route, from the text of /proc/net/route (little endian)."""
    found = []
    for line in route_table.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8:
            address = IPv4Address(int.from_bytes(bytes.fromhex(fields[1]), "little"))
            mask = IPv4Address(int.from_bytes(bytes.fromhex(fields[7]), "little"))
            found.append((fields[0], IPv4Network(f"{address}/{mask}", strict=False)))
    return found


def kubelet_faults(kubelet_socket: Path) -> list[str]:
    """A kubelet of the machine's own listens at a place that every kubelet clears at its start."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(kubelet_socket))
        except OSError:
            return []
    if any(any(folder.iterdir()) for folder in every_state_folder()):
        # What a killed cluster of ours left, and the boot removes first; or another number's.
        return []
    return [
        f"this machine is a Kubernetes node itself ({kubelet_socket} answers), and two kubelets "
        f"cannot share that place: {_OWN_CLUSTER}"
    ]


def disk_faults(free_bytes: int, needed_bytes: int, folder: str) -> list[str]:
    """Room for what is to be written."""
    if free_bytes >= needed_bytes:
        return []
    return [
        f"{folder} has {free_bytes / 2**30:.1f} GiB free; {needed_bytes / 2**30:.0f} are needed"
    ]


def apt_faults() -> list[str]:
    """The base image comes from the mirror that apt uses."""
    name = codename(Path("/etc/os-release").read_text())
    if base_source(machine_sources(), name) is not None:
        return []
    return [
        f"apt's sources name no mirror for {name or 'this release'} with component main; "
        "the base image is made from it: add one below /etc/apt/sources.list.d/"
    ]


def download_faults() -> list[str]:
    """Whether Go modules can be had, through whatever way this machine is set up for.

    Without a Go on PATH there is nothing to ask with; then fetching one is the first step of the
    build, and says the same.
    """
    go = toolchain.go_on_path(toolchain.needed_version([programs.ETCD.go_mod]))
    if go is None:
        return []
    try:
        programs.download_modules(programs.ETCD, go, "go.etcd.io/etcd/server/v3")
    except CommandFailed as error:
        return [
            "Go modules cannot be fetched, and the programs are built from them; connect the "
            f"machine, or set GOPROXY or HTTPS_PROXY. {error}"
        ]
    return []


def _has_file_system(name: str) -> bool:
    return name in Path("/proc/filesystems").read_text().split()


def _trial_faults() -> list[str]:
    """Make one of each in a network namespace that ends with the command."""
    trials = {
        "veth (CONFIG_VETH)": "ip link add name trial0 type veth peer name trial1",
        "bridge (CONFIG_BRIDGE)": "ip link add name trial2 type bridge",
        "nftables (CONFIG_NF_TABLES)": "nft add table ip trial",
    }
    missing = packages.missing_packages()
    faults = []
    for feature, command in trials.items():
        needed = "nftables" if command.startswith("nft") else "iproute2"
        if needed in missing or "util-linux" in missing:
            # Its package is missing and will be installed; the boot itself will tell.
            continue
        try:
            run(["unshare", "--net", *command.split()])
        except CommandFailed as error:
            faults.append(f"the kernel lacks {feature}: {error.output}")
    return faults


def _refuse(faults: list[str]) -> None:
    if faults:
        raise MachineNotReady(faults)


_OWN_CLUSTER = "use a cluster of your own, with KUBECONFIG=FILE"
