"""One node: containerd, kubelet and kube-proxy with their configuration files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import programs
from tests.cluster.control_plane import PKI, kubeconfig_file
from tests.cluster.layout import (
    CLUSTER_DOMAIN,
    CONTROL_PLANE,
    DNS_SERVICE_ADDRESS,
    POD_NETWORK,
    Node,
)
from tests.cluster.processes import Program

CNI_PROGRAMS = Path("/usr/lib/cni")
PROXY_HEALTH_PORT = 10256


def containerd(node: Node) -> Program:
    """The container runtime: a process of ours, not the machine's service."""
    return _program(node, "containerd", "containerd", "--config", str(_containerd_file(node)))


def kubelet(node: Node) -> Program:
    """The kubelet."""
    return _program(
        node,
        "kubelet",
        str(programs.program(programs.KUBERNETES, "kubelet")),
        f"--config={_kubelet_file(node)}",
        f"--kubeconfig={kubeconfig_file(node.name)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.folder / 'kubelet'}",
        f"--cert-dir={node.folder / 'kubelet-pki'}",
    )


def kube_proxy(node: Node) -> Program:
    """The service proxy."""
    return _program(
        node,
        "kube-proxy",
        str(programs.program(programs.KUBERNETES, "kube-proxy")),
        f"--config={_proxy_file(node)}",
    )


def write_configuration(node: Node, pause_reference: str) -> None:
    """Write every file that the node's programs read."""
    for folder in (node.folder / "cni", node.folder / "manifests", node.folder / "volume-plugins"):
        folder.mkdir(parents=True, exist_ok=True)
    _containerd_file(node).write_text(containerd_configuration(node, pause_reference))
    (node.folder / "cni" / "10-nightcap.conflist").write_text(cni_configuration(node))
    _kubelet_file(node).write_text(kubelet_configuration(node))
    _proxy_file(node).write_text(proxy_configuration(node))
    _resolv_file(node).write_text(f"nameserver {CONTROL_PLANE.address}\n")


def containerd_configuration(node: Node, pause_reference: str) -> str:
    """The container runtime's configuration, version 2, as containerd 1.6 and newer read it."""
    folder = node.folder / "containerd"
    return f"""version = 2
root = "{folder / "root"}"
state = "{folder / "state"}"
# No opt plugin: it would make a folder outside of ours.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "{node.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_reference}"
  # Machines without CAP_SYS_RESOURCE may not lower a process's score; without this every pod
  # fails there.
  restrict_oom_score_adj = true
  # The pods' network namespaces are then mounted where we find them again.
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{node.folder / "cni"}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{folder / "runc"}"
        SystemdCgroup = false
"""


def cni_configuration(node: Node) -> str:
    """The pods' network: a bridge, routed and never masqueraded.

    With masquerading a pod of the other node would see the node's address instead of the pod's,
    which a packet capture must not.
    """
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": node.cni_network,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(node.folder / "cni-addresses"),
                        "ranges": [[{"subnet": str(node.pod_network)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        indent=2,
    )


def kubelet_configuration(node: Node) -> str:
    """The kubelet's configuration file."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            # Each kubelet removes the cgroups below its root that it does not know.
            "cgroupRoot": f"/{node.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(PKI / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(PKI / f"{node.name}.crt"),
            "tlsPrivateKeyFile": str(PKI / f"{node.name}.key"),
            "clusterDNS": [str(DNS_SERVICE_ADDRESS)],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(_resolv_file(node)),
            "podLogsDir": str(node.folder / "logs"),
            "staticPodPath": str(node.folder / "manifests"),
            "volumePluginDir": str(node.folder / "volume-plugins"),
            # Images come from no registry: one that is collected is lost.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            # A full disk of a developer must not evict the pods of a test.
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
        },
        indent=2,
    )


def proxy_configuration(node: Node) -> str:
    """The service proxy's configuration file."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": node.name,
            "clientConnection": {"kubeconfig": str(kubeconfig_file("kube-proxy"))},
            # What does not come from a pod is masqueraded on its way to a service, so that the
            # answer finds its way back through the node that rewrote it.
            "clusterCIDR": str(POD_NETWORK),
            "healthzBindAddress": f"{node.address}:{PROXY_HEALTH_PORT}",
            "metricsBindAddress": "127.0.0.1:10249",
            # These limits belong to the machine; 0 leaves them alone.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "oomScoreAdj": 0,
        },
        indent=2,
    )


def _containerd_file(node: Node) -> Path:
    return node.folder / "containerd.toml"


def _kubelet_file(node: Node) -> Path:
    return node.folder / "kubelet.json"


def _proxy_file(node: Node) -> Path:
    return node.folder / "kube-proxy.json"


def _resolv_file(node: Node) -> Path:
    return node.folder / "resolv.conf"


def _program(node: Node, name: str, *argv: str) -> Program:
    return Program(f"{node.name}-{name}", argv, node.namespace)
