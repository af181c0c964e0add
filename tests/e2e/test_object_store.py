"""An installation whose files are in an object store: two replicas, and one of them dies."""

import contextlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import installation
from demo.files import Retrieval
from demo.kubectl import wait_for
from demo.stage import Stage
from tests.cluster.layout import HOST_ADDRESS
from tests.e2e.shop import Shop
from tests.unit.retrieval.s3 import S3Server

NIGHTCAP = "nightcap-system"
REPLICA = "app.kubernetes.io/name=nightcap-retrieval"


def replicas(stage: Stage) -> list[str]:
    """Names of retrieval's pods that are ready and not going."""
    items = stage.kubectl.json("-n", NIGHTCAP, "get", "pods", "-l", REPLICA)["items"]
    return sorted(
        pod["metadata"]["name"]
        for pod in items
        if "deletionTimestamp" not in pod["metadata"]
        and all(
            each["ready"] for each in pod["status"].get("containerStatuses", [{"ready": False}])
        )
    )


@contextlib.contextmanager
def reach(stage: Stage, pod: str) -> Iterator[Retrieval]:
    """One replica, as people reach retrieval."""
    bundle = stage.kubectl.json("-n", NIGHTCAP, "get", "configmap", "nightcap-ca")["data"]["ca.crt"]
    with stage.kubectl.port_forward(NIGHTCAP, f"pod/{pod}", 8444) as port:
        yield Retrieval(port, ssl.create_default_context(cadata=bundle))


@pytest.fixture
def on_objects(stage: Stage, tmp_path: Path) -> Iterator[Stage]:
    """The installation with an S3-speaking server of the host as its store; then as it was."""
    assert stage.disposable is not None, (
        "pods of another cluster cannot reach this machine's server"
    )
    server = S3Server(tmp_path, str(HOST_ADDRESS))
    settings = {"NIGHTCAP_STORE": server.new_url(), "AWS_ENDPOINT_URL": server.endpoint}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nightcap-store", "namespace": NIGHTCAP},
        "stringData": {
            name: value for name, value in server.environ.items() if name not in settings
        },
    }

    def manifests(object_store: dict[str, str] | None) -> str:
        return installation.render(
            stage.kubectl,
            control_image=stage.images.control,
            sidecar_image=stage.images.sidecar,
            local_store=True,
            object_store=object_store,
        )

    try:
        stage.kubectl.apply(json.dumps(secret))
        installation.install(stage.kubectl, manifests(settings), lambda line: None)
        yield stage
    finally:
        installation.install(stage.kubectl, manifests(None), lambda line: None)
        stage.kubectl.delete("-n", NIGHTCAP, "secret", "nightcap-store")
        stage.kubectl.delete("-n", NIGHTCAP, "poddisruptionbudget", "nightcap-retrieval")
        server.stop()


@pytest.mark.alone
@pytest.mark.long
def test_files_are_had_through_any_replica_also_while_one_dies(
    on_objects: Stage, shop: Shop
) -> None:
    stage = on_objects
    wait_for("two replicas", lambda: len(replicas(stage)) == 2, 60)
    shop.start(*(shop.pod(f"web-{number}", labels={"app": "web"}) for number in range(2)))
    shop.create(
        shop.capture("dns", filter="udp port 7000", selector={"matchLabels": {"app": "web"}})
    )
    shop.wait_open("dns", 2)
    sent = 0

    def send() -> None:
        nonlocal sent
        for number in range(2):
            payloads = [f"packet {n}" for n in range(sent, sent + 20)]
            shop.send_udp(f"web-{number}", "192.0.2.1", 7000, payloads)
        sent += 20

    send()
    first, second = replicas(stage)
    stage.kubectl.run("-n", NIGHTCAP, "delete", "pod", first, "--grace-period=0", "--force")
    send()
    # All is there while the dead one's successor starts, and through the successor.
    token = shop.person("analyst", "nightcap-files")
    path = f"/v1/namespaces/{shop.name}/packetcaptures/dns/files"

    def counted(retrieval: Retrieval) -> int:
        files = retrieval.get(path, token).json()["files"]
        return sum(file["packets"] or 0 for file in files)

    with reach(stage, second) as retrieval:
        wait_for("all packets", lambda: counted(retrieval) == 2 * sent, 60)
    stage.kubectl.rolled_out(NIGHTCAP, "nightcap-retrieval")
    (third,) = {name for name in replicas(stage) if name != second}
    with reach(stage, third) as retrieval:
        assert counted(retrieval) == 2 * sent
        assert len(shop.files(retrieval, "dns", token)) == 2
    status = wait_for(
        "the capture's status",
        lambda: shop.status("dns") if _packets(shop) == 2 * sent else None,
        60,
    )
    assert status["pods"]["capturing"] == 2
    # The controller asks each replica; one that died takes no report with it.
    shop.run("patch", "packetcaptures.nightcap.dev", "dns", "--type=merge", "-p",
             '{"spec":{"suspend":true}}')  # fmt: skip
    shop.wait_phase("dns", "Finished", 60)


def _packets(shop: Shop) -> int:
    found: int = shop.status("dns").get("packets", 0)
    return found
