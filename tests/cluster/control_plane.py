"""The control plane: etcd, API server, controller manager, scheduler and DNS, with their files.

All of them live in the first node's network namespace, so that the API server reaches services
and pods the way a webhook call has to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import programs
from tests.cluster.certificates import Authority, Identity, kubeconfig, write_signing_pair
from tests.cluster.layout import (
    API_PORT,
    API_SERVICE_ADDRESS,
    API_URL,
    CLUSTER_DOMAIN,
    CONTROL_PLANE,
    DNS_SERVICE_ADDRESS,
    NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    Node,
)
from tests.cluster.paths import STATE
from tests.cluster.processes import Program

PKI = STATE / "pki"
ETCD_URL = "http://127.0.0.1:2379"
DNS_READY_PORT = 8181

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
CLUSTER_DNS = "dns"

_API_SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
    "localhost",
)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a certificate and a kubeconfig."""

    file_name: str
    user: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", "nightcap-admin", ("system:masters",))
USERS = (
    ADMIN,
    User(CONTROLLER_MANAGER, "system:kube-controller-manager"),
    User(SCHEDULER, "system:kube-scheduler"),
    User("kube-proxy", "system:kube-proxy"),
    User(CLUSTER_DNS, "system:coredns"),
)


def kubeconfig_file(name: str) -> Path:
    """Where the kubeconfig of a user or a node lies."""
    return STATE / "kubeconfigs" / name


def admin_kubeconfig() -> Path:
    """The administrator's kubeconfig, for people and tests."""
    return kubeconfig_file(ADMIN.file_name)


def write_identities() -> None:
    """Make all certificates, keys and kubeconfigs of this boot."""
    authority = Authority(PKI, "ca")
    authority.write_key()
    _issue_servers(authority)
    front_proxy = Authority(PKI, "front-proxy-ca")
    front_proxy.issue(Identity("front-proxy-client", "front-proxy-client"))
    write_signing_pair(PKI, "service-account")
    kubeconfig_file("x").parent.mkdir(parents=True, exist_ok=True)
    for user in USERS:
        _write_kubeconfig(authority, Identity(user.file_name, user.user, user.groups))
    for node in NODES:
        _write_kubeconfig(authority, node_identity(node))


def node_identity(node: Node) -> Identity:
    """A kubelet's certificate: its name to the API server, and its server's address."""
    return Identity(
        file_name=node.name,
        user=f"system:node:{node.name}",
        groups=("system:nodes",),
        names=(node.name,),
        addresses=(node.address,),
    )


def etcd() -> Program:
    """The store. Nothing in it has to survive the machine, so it does not wait for the disk."""
    return _program(
        ETCD,
        programs.program(programs.ETCD, "etcd"),
        f"--data-dir={STATE / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    )


def api_server() -> Program:
    """The API server, with the admission, authorization and aggregation of a production cluster."""
    return _program(
        API_SERVER,
        programs.program(programs.KUBERNETES, API_SERVER),
        f"--etcd-servers={ETCD_URL}",
        f"--advertise-address={CONTROL_PLANE.address}",
        f"--secure-port={API_PORT}",
        f"--cert-dir={PKI}",
        f"--tls-cert-file={PKI / 'apiserver.crt'}",
        f"--tls-private-key-file={PKI / 'apiserver.key'}",
        f"--client-ca-file={PKI / 'ca.crt'}",
        f"--kubelet-client-certificate={PKI / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={PKI / 'apiserver-kubelet-client.key'}",
        f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={PKI / 'service-account.pub'}",
        f"--service-account-signing-key-file={PKI / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={PKI / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={PKI / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={PKI / 'front-proxy-client.key'}",
    )


def controller_manager() -> Program:
    """The controllers. Pod networks are fixed per node, so none is allocated."""
    own = kubeconfig_file(CONTROLLER_MANAGER)
    return _program(
        CONTROLLER_MANAGER,
        programs.program(programs.KUBERNETES, CONTROLLER_MANAGER),
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        f"--cert-dir={PKI}",
        f"--service-account-private-key-file={PKI / 'service-account.key'}",
        f"--root-ca-file={PKI / 'ca.crt'}",
        f"--cluster-signing-cert-file={PKI / 'ca.crt'}",
        f"--cluster-signing-key-file={PKI / 'ca.key'}",
        f"--cluster-cidr={POD_NETWORK}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        *_REQUEST_RATES,
    )


def scheduler() -> Program:
    """The scheduler."""
    own = kubeconfig_file(SCHEDULER)
    return _program(
        SCHEDULER,
        programs.program(programs.KUBERNETES, SCHEDULER),
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        f"--cert-dir={PKI}",
        "--leader-elect=false",
        *_REQUEST_RATES,
    )


def cluster_dns() -> Program:
    """The name server, on the node's own address; the service's address leads to it."""
    return _program(
        CLUSTER_DNS,
        programs.program(programs.DNS, "dns"),
        f"-conf={STATE / 'Corefile'}",
        "-quiet",
    )


def write_corefile() -> None:
    """Write the name server's configuration."""
    (STATE / "Corefile").write_text(
        f"""# No way leads out of this cluster, so every other name does not exist.
. {{
    bind {CONTROL_PLANE.address}
    errors
    ready {CONTROL_PLANE.address}:{DNS_READY_PORT}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}

{CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
    bind {CONTROL_PLANE.address}
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig_file(CLUSTER_DNS)}
        pods insecure
        ttl 5
    }}
}}
"""
    )


def dns_objects() -> str:
    """The name server's rights, and the service that leads to it: a process and no pod."""
    return json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [*_dns_rights(), *_dns_service()]}
    )


# By default both ask the API server 20 and 50 times a second at most: too slow for thousands of
# pods, and pure waiting here.
_REQUEST_RATES = ("--kube-api-qps=500", "--kube-api-burst=1000")


def _dns_rights() -> list[dict[str, object]]:
    name = {"name": "system:coredns"}
    read = ["list", "watch"]
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": name,
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces"],
                    "verbs": read,
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": read,
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": name,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                **name,
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", **name}],
        },
    ]


def _dns_service() -> list[dict[str, object]]:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": str(DNS_SERVICE_ADDRESS), "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [
                {"addresses": [str(CONTROL_PLANE.address)], "conditions": {"ready": True}}
            ],
        },
    ]


def _issue_servers(authority: Authority) -> None:
    authority.issue(
        Identity(
            file_name="apiserver",
            user="kube-apiserver",
            names=_API_SERVER_NAMES,
            addresses=(CONTROL_PLANE.address, API_SERVICE_ADDRESS),
        )
    )
    authority.issue(
        Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    )


def _write_kubeconfig(authority: Authority, identity: Identity) -> None:
    certificate, key = authority.issue(identity)
    file = kubeconfig_file(identity.file_name)
    file.touch(mode=0o600)
    file.write_text(kubeconfig(API_URL, authority.file, certificate, key))


def _program(name: str, program: Path, *flags: str) -> Program:
    return Program(name, (str(program), *flags), CONTROL_PLANE.namespace)
