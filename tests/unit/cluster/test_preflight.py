from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.cluster import packages, preflight
from tests.cluster.errors import MachineNotReady

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "docker0\t0000600A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n"
    "nightcap0\t0000620A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)


def test_the_route_table_is_read_in_its_byte_order() -> None:
    assert preflight.routes(ROUTES) == [
        ("eth0", IPv4Network("0.0.0.0/0")),
        ("docker0", IPv4Network("10.96.0.0/12")),
        ("nightcap0", IPv4Network("10.98.0.0/24")),
    ]


def test_a_route_into_the_clusters_ranges_is_a_fault_and_ours_and_the_default_are_not() -> None:
    faults = preflight.network_faults(ROUTES)
    assert len(faults) == 2
    assert all("10.96.0.0/12 to docker0" in fault for fault in faults)


def test_another_user_than_root_is_told_what_to_do() -> None:
    assert preflight.root_faults(0) == []
    (fault,) = preflight.root_faults(1000)
    assert "user id is 1000" in fault
    assert "sudo" in fault


def test_missing_packages_are_a_fault_only_where_nobody_can_install_them() -> None:
    assert preflight.package_faults(["runc"], can_install=True) == []
    assert preflight.package_faults([], can_install=False) == []
    (fault,) = preflight.package_faults(["buildah", "runc"], can_install=False)
    assert "apt-get install buildah runc" in fault


@pytest.mark.parametrize(("free", "faults"), [(3, 0), (2, 0), (1, 1)])
def test_too_little_room_is_a_fault_with_both_figures(free: int, faults: int) -> None:
    found = preflight.disk_faults(free * 2**30, 2 * 2**30, "/somewhere")
    assert len(found) == faults
    assert all("/somewhere has 1.0 GiB free; 2 are needed" in fault for fault in found)


def test_another_architecture_is_named() -> None:
    assert preflight.architecture_faults("Linux", "x86_64") == []
    (fault,) = preflight.architecture_faults("Linux", "aarch64")
    assert "Linux on aarch64" in fault


def test_no_kubelet_answers_where_there_is_no_socket(tmp_path: Path) -> None:
    assert preflight.kubelet_faults(tmp_path / "kubelet.sock") == []


def test_all_faults_come_in_one_message() -> None:
    message = str(MachineNotReady(["no root", "no overlay"]))
    assert "nothing was touched" in message
    assert message.endswith("  - no root\n  - no overlay")


def test_packages_are_looked_for_by_what_they_bring() -> None:
    there = {"buildah", "/usr/lib/cni/bridge"}
    needed = {"runc": "runc", "buildah": "buildah", "cni": "/usr/lib/cni/bridge"}
    assert packages.missing_packages(there.__contains__, needed) == ["runc"]
