"""The overlay for cert-manager, with cert-manager's own programs beside a private API server."""

import base64
import http.client
import io
import json
import socket
import ssl
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs.settings import CertificateSettings
from nightcap.kube import paths
from nightcap.kube.errors import NotFound
from tests.apiserver.load import Sidecar
from tests.apiserver.private import PrivateApi
from tests.apiserver.site import SYSTEM, Site, a_site, bare_pod, manifest
from tests.apiserver.test_rotation import capture_all, leaf_shown
from tests.cluster import programs, toolchain

pytestmark = pytest.mark.long

OVERLAY = Path(__file__).resolve().parents[2] / "manifests" / "cert-manager"
RETRIEVAL = f"nightcap-retrieval.{SYSTEM}.svc"
RETRIEVAL_CERT = "nightcap-retrieval-cert"
CERTIFICATES = "/apis/cert-manager.io/v1/namespaces/nightcap-system/certificates"


def build() -> dict[str, Path]:
    part = programs.CERT_MANAGER
    if not programs.is_built(part):
        programs.build_go_part(part, toolchain.find_go(toolchain.needed_version([part.go_mod])))
    return {name: programs.program(part, name) for name in part.programs}


def definitions() -> list[dict[str, Any]]:
    """The CRDs of the release that is built, out of its module."""
    part = programs.CERT_MANAGER
    go = toolchain.find_go(toolchain.needed_version([part.go_mod]))
    found = subprocess.run(
        [go, "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager"],
        cwd=part.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = Path(found.stdout.strip()) / "deploy" / "crds"
    texts = (file.read_text() for file in sorted(folder.glob("crd-*.yaml")))
    # They are templates of a chart; nothing in them depends on a value but labels.
    return [yaml.safe_load(_without_templates(text)) for text in texts]


def _without_templates(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "{{" not in line)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = CertificateSettings.standard(SYSTEM, fills_webhooks=False)
    environ = {"NIGHTCAP_SERVING_SECRET": "nightcap-webhook-cert"}
    folder = tmp_path_factory.mktemp("site")
    with a_site(folder, settings, environ, before=start_cert_manager, installed=overlay) as site:
        yield site


def start_cert_manager(api: PrivateApi) -> None:
    binaries = build()
    api.apply(*definitions(), server_side=True)
    established = api.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"
    )
    assert established.returncode == 0, established.stderr
    for name in ("controller", "cainjector"):
        api.run(
            f"cert-manager-{name}", str(binaries[name]), f"--kubeconfig={api.kubeconfig}",
            "--leader-elect=false", "--v=2",
            *(["--metrics-listen-address=127.0.0.1:0"] if name == "controller" else []),
        )  # fmt: skip


def overlay(api: PrivateApi) -> None:
    api.apply(*documents("certificates.yaml"), *documents("rbac.yaml"))
    annotate(api)


def documents(name: str) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((OVERLAY / name).read_text())


def annotate(api: PrivateApi) -> None:
    """What the overlay's patch does to the webhook configurations."""
    overlay = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())
    ((operation,),) = [
        yaml.safe_load(patch["patch"])
        for patch in overlay["patches"]
        if "WebhookConfiguration" in patch.get("target", {}).get("kind", "")
    ]
    for kind in ("mutating", "validating"):
        pairs = [f"{key}={value}" for key, value in operation["value"].items()]
        done = api.kubectl("annotate", f"{kind}webhookconfiguration", "nightcap", *pairs)
        assert done.returncode == 0, done.stderr


def uploaded(site: Site, namespace: str) -> Sidecar:
    """The sidecar of a new pod there, after it has shipped one segment of capture `all`."""
    capture = capture_all(site, namespace)
    pod = site.api.create_pod(namespace, bare_pod(), dry_run=False)
    sidecar = Sidecar(site.api, pod, capture, site.collector_port)
    try:
        sidecar.upload()
    finally:
        sidecar.close()
    assert (sidecar.uploads, sidecar.failed) == (1, [])
    return sidecar


def test_pods_are_injected_under_a_certificate_of_cert_manager(site: Site) -> None:
    secret = json.loads(
        site.api.client.request("GET", paths.secret(SYSTEM, "nightcap-webhook-cert"))
    )
    assert site.ca_bundle() == secret["data"]["ca.crt"]
    roots = base64.b64decode(secret["data"]["ca.crt"]).decode()
    assert len({leaf_shown(port, roots) for port in site.replicas}) == 1


def test_sidecars_pin_the_controllers_root_and_ship_all_the_same(site: Site) -> None:
    namespace = site.api.namespace("shop", **{"nightcap.dev/inject": "enabled"})
    sidecar = uploaded(site, namespace)
    ours = json.loads(site.api.client.request("GET", paths.config_map(SYSTEM, "nightcap-ca")))
    assert sidecar.root.strip() == ours["data"]["ca.crt"].strip()
    assert sidecar.root.strip() not in base64.b64decode(site.ca_bundle()).decode()


def test_a_renewed_leaf_is_shown_without_a_restart_and_our_loop_leaves_the_bundle_alone(
    site: Site,
) -> None:
    roots = base64.b64decode(site.ca_bundle()).decode()
    before = leaf_shown(site.replicas[0], roots)
    # Who deletes the Secret of a certificate asks cert-manager for another one.
    site.api.client.request("DELETE", paths.secret(SYSTEM, "nightcap-webhook-cert"))
    for port in site.replicas:
        site.eventually("another leaf", lambda port=port: leaf_shown(port, roots) != before)
    steps = site.certificates.steps
    wiped = [
        {"op": "remove", "path": f"/webhooks/{index}/clientConfig/caBundle"} for index in range(3)
    ]
    site.api.client.request(
        "PATCH",
        paths.mutating_webhook("nightcap"),
        body=wiped,
        content_type="application/json-patch+json",
    )
    site.eventually("cert-manager has filled it in", site.ca_bundle)
    assert base64.b64decode(site.ca_bundle()).decode() == roots
    assert site.certificates.steps == steps


def files_of(port: int, roots: str, token: str) -> bytes:
    """The one file of capture `all` in namespace `people`, for who trusts these roots alone."""
    connection = http.client.HTTPSConnection(RETRIEVAL, timeout=20)
    # One connects to where the listener is; the certificate has the Service's name.
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    trust = ssl.create_default_context(cadata=roots)
    connection.sock = trust.wrap_socket(plain, server_hostname=RETRIEVAL)
    try:
        connection.request(
            "GET",
            "/v1/namespaces/people/packetcaptures/all/files.zip",
            headers={"Authorization": f"Bearer {token}"},
        )
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        with zipfile.ZipFile(io.BytesIO(answer.read())) as archive:
            (name,) = archive.namelist()
            return archive.read(name)
    finally:
        connection.close()


def reader(site: Site, namespace: str) -> str:
    """The token of somebody who may read files there."""
    site.api.apply(*manifest("user-roles.yaml"))
    rights = ["--clusterrole=nightcap-files", f"--serviceaccount={namespace}:default"]
    made = site.api.kubectl("-n", namespace, "create", "rolebinding", "reader", *rights)
    assert made.returncode == 0, made.stderr
    token = site.api.kubectl("-n", namespace, "create", "token", "default")
    assert token.returncode == 0, token.stderr
    return token.stdout.strip()


def test_people_fetch_files_under_a_certificate_of_cert_manager_also_after_its_renewal(
    site: Site,
) -> None:
    namespace = site.api.namespace("people", **{"nightcap.dev/inject": "enabled"})
    sidecar = uploaded(site, namespace)
    token = reader(site, namespace)
    port = site.start_files({"NIGHTCAP_SERVING_SECRET": RETRIEVAL_CERT})
    path = paths.secret(SYSTEM, RETRIEVAL_CERT)

    def roots() -> str:
        data = json.loads(site.api.client.request("GET", path))["data"]
        return base64.b64decode(data["ca.crt"]).decode()

    before = leaf_shown(port, roots(), RETRIEVAL)
    recorded = files_of(port, roots(), token)
    assert recorded[:4] == b"\xd4\xc3\xb2\xa1"
    # The collector's root, which sidecars pin, says nothing of this listener.
    with pytest.raises(ssl.SSLCertVerificationError):
        files_of(port, sidecar.root, token)
    known = roots()
    site.api.client.request("DELETE", path)
    site.eventually("another leaf", lambda: leaf_shown(port, known, RETRIEVAL) != before)
    assert files_of(port, known, token) == recorded


def test_every_certificate_of_the_overlay_is_issued(site: Site) -> None:
    def ready() -> bool:
        try:
            listed = json.loads(site.api.client.request("GET", CERTIFICATES))["items"]
        except NotFound:
            return False
        return len(listed) == 3 and all(
            any(
                c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"]
            )
            for item in listed
        )

    site.eventually("three certificates are ready", ready)
