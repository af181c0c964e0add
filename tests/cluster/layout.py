"""The cluster on paper: nodes, addresses, names and folders. Knows no process and no file."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster.paths import NUMBER, PREFIX, STATE

NODE_NETWORK = IPv4Network(f"10.98.{NUMBER}.0/24")
SERVICE_NETWORK = IPv4Network(f"10.{100 + NUMBER if NUMBER else 96}.0.0/16")
POD_NETWORK = IPv4Network(f"10.{244 + NUMBER}.0.0/16")

HOST_ADDRESS = NODE_NETWORK[1]
API_SERVICE_ADDRESS = SERVICE_NETWORK[1]
DNS_SERVICE_ADDRESS = SERVICE_NETWORK[10]
API_PORT = 6443
CLUSTER_DOMAIN = "cluster.local"

# The bridge between the nodes lives in a namespace of its own, so that neither the host's firewall
# nor its bridge settings touch what the nodes say to each other. The host has one link, to it.
FABRIC_NAMESPACE = f"{PREFIX}-fabric"
HOST_LINK = f"{PREFIX}0"


@dataclass(frozen=True, slots=True)
class Node:
    """One Kubernetes node: a network namespace with a kubelet, a containerd and a kube-proxy."""

    name: str
    address: IPv4Address
    pod_network: IPv4Network

    @property
    def namespace(self) -> str:
        return f"{PREFIX}-{self.name}"

    @property
    def namespace_file(self) -> Path:
        return namespace_file(self.namespace)

    @property
    def folder(self) -> Path:
        return STATE / self.name

    @property
    def cgroup(self) -> str:
        """The root of the node's cgroups, relative to each hierarchy."""
        return f"{PREFIX}-{self.name}"

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def cni_network(self) -> str:
        """Name of the pods' network, also in the file names of libcni's machine-wide cache."""
        return f"{PREFIX}-{self.name}"


def _node(number: int) -> Node:
    pod_networks = list(POD_NETWORK.subnets(new_prefix=24))
    return Node(f"node{number}", NODE_NETWORK[number + 1], pod_networks[number])


NODES = (_node(1), _node(2))
CONTROL_PLANE = NODES[0]

API_URL = f"https://{CONTROL_PLANE.address}:{API_PORT}"


def namespace_file(namespace: str) -> Path:
    """Where iproute2 keeps a named network namespace."""
    return Path("/run/netns") / namespace


def namespaces() -> list[str]:
    """All network namespaces of ours."""
    return [FABRIC_NAMESPACE, *(node.namespace for node in NODES)]


def node_named(name: str) -> Node:
    """The node of that name.

    Raises:
        KeyError: there is none.
    """
    return {node.name: node for node in NODES}[name]
