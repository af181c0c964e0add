import json
import ssl
from ipaddress import IPv4Network
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.cluster import control_plane, node
from tests.cluster.certificates import Authority, Identity, kubeconfig
from tests.cluster.layout import (
    DNS_SERVICE_ADDRESS,
    NODE_NETWORK,
    NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    node_named,
)
from tests.cluster.paths import STATE

LONGEST_SOCKET_PATH = 107


def test_every_node_has_folders_networks_and_cgroups_of_its_own() -> None:
    for attribute in ("address", "pod_network", "folder", "namespace", "cgroup", "cni_network"):
        assert len({getattr(each, attribute) for each in NODES}) == len(NODES)
    assert all(each.address in NODE_NETWORK for each in NODES)
    assert all(each.pod_network.subnet_of(POD_NETWORK) for each in NODES)
    assert not SERVICE_NETWORK.overlaps(POD_NETWORK)
    assert node_named("node2") is NODES[1]


def test_socket_paths_are_short_enough() -> None:
    for each in NODES:
        assert len(f"{each.containerd_socket}.ttrpc") <= LONGEST_SOCKET_PATH
        pod_resources = each.folder / "kubelet" / "pod-resources" / "kubelet.sock"
        assert len(str(pod_resources)) <= LONGEST_SOCKET_PATH


def test_pods_are_never_masqueraded() -> None:
    for each in NODES:
        bridge, portmap = json.loads(node.cni_configuration(each))["plugins"]
        assert (bridge["ipMasq"], bridge["hairpinMode"], bridge["isGateway"]) == (False, True, True)
        ((address_range,),) = bridge["ipam"]["ranges"]
        assert IPv4Network(address_range["subnet"]) == each.pod_network
        assert portmap["capabilities"] == {"portMappings": True}


def test_a_kubelet_keeps_to_its_own_cgroups_and_names_the_cluster_dns() -> None:
    for each in NODES:
        configuration = json.loads(node.kubelet_configuration(each))
        assert configuration["cgroupRoot"] == f"/{each.cgroup}"
        assert configuration["clusterDNS"] == [str(DNS_SERVICE_ADDRESS)]
        assert configuration["authentication"]["anonymous"] == {"enabled": False}


def test_what_a_node_writes_lies_in_the_state_folder() -> None:
    for each in NODES:
        text = node.containerd_configuration(each, "registry.local/pause:1")
        folders = [line.split('"')[1] for line in text.splitlines() if ' = "/' in line]
        outside = [path for path in folders if not path.startswith(str(STATE))]
        assert outside == ["/usr/lib/cni"]


def test_the_api_server_is_guarded_like_one_in_production() -> None:
    flags = control_plane.api_server().argv
    assert "--authorization-mode=Node,RBAC" in flags
    assert "--enable-admission-plugins=NodeRestriction" in flags
    assert not [flag for flag in flags if flag.startswith("--disable-admission-plugins")]
    assert len([flag for flag in flags if flag.startswith("--requestheader-")]) == 5


def test_dns_is_a_service_that_leads_to_a_process() -> None:
    items = {item["kind"]: item for item in json.loads(control_plane.dns_objects())["items"]}
    assert items["Service"]["spec"]["clusterIP"] == str(DNS_SERVICE_ADDRESS)
    assert "selector" not in items["Service"]["spec"]
    labels = items["EndpointSlice"]["metadata"]["labels"]
    assert labels == {"kubernetes.io/service-name": items["Service"]["metadata"]["name"]}


def test_a_kubelets_certificate_says_who_and_where_it_is(tmp_path: Path) -> None:
    identity = control_plane.node_identity(NODES[0])
    file, key = Authority(tmp_path, "ca").issue(identity)
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    (user,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    (group,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert (user.value, group.value) == ("system:node:node1", "system:nodes")
    assert names.get_values_for_type(x509.IPAddress) == [NODES[0].address]
    assert key.stat().st_mode & 0o077 == 0


def test_a_certificate_convinces_who_trusts_its_authority_and_nobody_else(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "a", "ca"), Authority(tmp_path / "b", "ca")
    file, key = ours.issue(Identity("server", "server", names=("localhost",)))
    assert _handshake(file, key, trusted=ours.file)
    assert not _handshake(file, key, trusted=other.file)


def test_a_kubeconfig_carries_everything_inside(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    file, key = authority.issue(Identity("admin", "admin"))
    text = kubeconfig("https://10.0.0.1:6443", authority.file, file, key)
    assert str(tmp_path) not in text
    assert json.loads(text)["current-context"] == "nightcap"


def _handshake(certificate: Path, key: Path, *, trusted: Path) -> bool:
    """Whether a client that trusts one authority accepts the server, without any socket."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    calling = ssl.create_default_context(cafile=str(trusted))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = calling.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return client.cipher() is not None
