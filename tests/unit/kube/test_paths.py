import pytest

from nightcap.kube import paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (paths.pods(), "/api/v1/pods"),
        (paths.pods("shop"), "/api/v1/namespaces/shop/pods"),
        (paths.pod_status("shop", "web-1"), "/api/v1/namespaces/shop/pods/web-1/status"),
        (paths.namespace("shop"), "/api/v1/namespaces/shop"),
        (
            paths.packetcapture_status("shop", "dns"),
            "/apis/nightcap.dev/v1alpha1/namespaces/shop/packetcaptures/dns/status",
        ),
        (paths.packetcaptures(), "/apis/nightcap.dev/v1alpha1/packetcaptures"),
        (
            paths.packetcapture_status("shop", "dns", "projectcalico.org"),
            "/apis/projectcalico.org/v3/namespaces/shop/packetcaptures/dns/status",
        ),
        (paths.group_version("projectcalico.org"), "/apis/projectcalico.org/v3"),
        (
            paths.api_service("projectcalico.org"),
            "/apis/apiregistration.k8s.io/v1/apiservices/v3.projectcalico.org",
        ),
        (
            paths.mutating_webhook("nightcap"),
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/nightcap",
        ),
        (
            paths.service_proxy("nightcap-system", "https:nightcap-retrieval:443", "/readyz"),
            "/api/v1/namespaces/nightcap-system/services/https:nightcap-retrieval:443/proxy/readyz",
        ),
        (paths.deployment("shop", "web"), "/apis/apps/v1/namespaces/shop/deployments/web"),
    ],
)
def test_paths_are_those_of_the_api(path: str, expected: str) -> None:
    assert path == expected


def test_no_name_leaves_its_place_in_the_path() -> None:
    assert paths.pod("a/../b", "..?x=1#") == "/api/v1/namespaces/a%2F..%2Fb/pods/..%3Fx%3D1%23"
