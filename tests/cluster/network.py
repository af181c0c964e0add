"""Network namespaces, links and routes: a fabric with a bridge, and every node hanging on it."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed
from tests.cluster.layout import (
    FABRIC_NAMESPACE,
    HOST_ADDRESS,
    HOST_LINK,
    NODE_NETWORK,
    NODES,
    SERVICE_NETWORK,
    Node,
    namespace_file,
    namespaces,
)

BRIDGE = "bridge"
_PREFIX_LENGTH = NODE_NETWORK.prefixlen

# In a node: forward between pods and nodes; let packets between two pods of one bridge pass the
# service rules, or the answer of a service's pod on the same node comes from the wrong address.
NODE_SETTINGS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
# The fabric is a cable: nothing looks into what passes.
FABRIC_SETTINGS = {
    "net.bridge.bridge-nf-call-iptables": "0",
    "net.bridge.bridge-nf-call-ip6tables": "0",
    "net.bridge.bridge-nf-call-arptables": "0",
}


def enter(namespace: str) -> list[str]:
    """The words before a command that make it run in a network namespace.

    Not `ip netns exec`: that unshares the mounts too and hides the cgroups from the kubelet.
    """
    return ["nsenter", f"--net={namespace_file(namespace)}", "--"]


def create() -> None:
    """Make the fabric, its bridge, the nodes' namespaces and links, and the host's way to them."""
    for namespace in namespaces():
        run(["ip", "netns", "add", namespace])
    _in_namespace(
        FABRIC_NAMESPACE,
        ["link set lo up", f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up"],
    )
    _set(FABRIC_NAMESPACE, FABRIC_SETTINGS)
    for node in NODES:
        _connect_node(node)
    _connect_host()


def remove() -> None:
    """Remove our links and namespaces; routes go with their links. Missing ones are fine."""
    for argv in (
        ["ip", "link", "del", HOST_LINK],
        *(["ip", "netns", "del", namespace] for namespace in namespaces()),
    ):
        try:
            run(argv)
        except CommandFailed:
            continue


def leftovers() -> list[str]:
    """What is there of ours, in words."""
    found = [f"network namespace {n}" for n in namespaces() if namespace_file(n).exists()]
    if Path("/sys/class/net", HOST_LINK).exists():
        found.append(f"link {HOST_LINK}")
    return found


def _connect_node(node: Node) -> None:
    port = node.name
    _ip(f"link add eth0 netns {node.namespace} type veth peer name {port} netns {FABRIC_NAMESPACE}")
    _in_namespace(FABRIC_NAMESPACE, [f"link set {port} master {BRIDGE} up"])
    _set(node.namespace, NODE_SETTINGS)
    _in_namespace(
        node.namespace,
        [
            "link set lo up",
            "link set eth0 up",
            f"addr add {node.address}/{_PREFIX_LENGTH} dev eth0",
            # There is no way out of the cluster, so there is no default route; but a packet to a
            # service needs one to get as far as the rules that rewrite its destination.
            f"route add {SERVICE_NETWORK} dev eth0 src {node.address}",
            *(
                f"route add {other.pod_network} via {other.address}"
                for other in NODES
                if other != node
            ),
        ],
    )


def _connect_host() -> None:
    _ip(f"link add {HOST_LINK} type veth peer name host netns {FABRIC_NAMESPACE}")
    _in_namespace(FABRIC_NAMESPACE, [f"link set host master {BRIDGE} up"])
    _ip(f"addr add {HOST_ADDRESS}/{_PREFIX_LENGTH} dev {HOST_LINK}")
    _ip(f"link set {HOST_LINK} up")
    _ip(f"route add {SERVICE_NETWORK} via {NODES[0].address}")
    for node in NODES:
        _ip(f"route add {node.pod_network} via {node.address}")


def _ip(command: str) -> None:
    run(["ip", *command.split()])


def _in_namespace(namespace: str, commands: list[str]) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")


def _set(namespace: str, settings: dict[str, str]) -> None:
    """Set kernel parameters of a namespace, by path: /proc/sys/net shows the reader's own."""
    script = "".join(
        f"echo {value} > /proc/sys/{name.replace('.', '/')}\n" for name, value in settings.items()
    )
    run([*enter(namespace), "sh", "-e"], stdin=script)
