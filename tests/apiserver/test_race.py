"""Pods that are admitted while a capture begins: who does not get orders from the webhook gets
them from the controller.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.bundle import Bundle, data_of
from nightcap.contract import keys
from nightcap.contract.orders import parse_orders
from nightcap.kube import paths
from tests.apiserver.balancer import Balancer
from tests.apiserver.controllers import SYSTEM, ControllerProcess, install
from tests.apiserver.private import Installation, PrivateApi
from tests.apiserver.site import bare_pod, eventually, injected

LAG_SECONDS = 60.0
"""Longer than the test."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[PrivateApi]:
    api = PrivateApi(tmp_path)
    try:
        install(api)
        yield api
    finally:
        api.close()


@pytest.fixture
def network(api: PrivateApi) -> Iterator[Balancer]:
    """What lies between the webhook and the API server."""
    balancer = Balancer([api.port])
    try:
        yield balancer
    finally:
        balancer.close()


@pytest.fixture
def installation(api: PrivateApi, network: Balancer) -> Installation:
    """The webhook, behind that."""
    return Installation(api, api_port=network.port)


@pytest.fixture
def controller(api: PrivateApi, installation: Installation) -> Iterator[ControllerProcess]:
    # It goes on with the root that is there; another one the API server would not trust.
    roots = Bundle(pairs={1: installation.root}, current=1, ca_bundle=installation.root.certificate)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nightcap-ca", "namespace": SYSTEM},
        "data": data_of(roots),
    }
    api.apply(secret)
    process = ControllerProcess(api)
    process.start()
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


def capture(api: PrivateApi, namespace: str, name: str) -> str:
    """Make a capture of every pod; its uid."""
    body = {
        "apiVersion": "nightcap.dev/v1alpha1",
        "kind": "PacketCapture",
        "metadata": {"name": name},
        "spec": {},
    }
    made = api.client.request("POST", paths.packetcaptures(namespace), body=body)
    return str(json.loads(made)["metadata"]["uid"])


def captures_of(pod: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """The captures in a pod's orders."""
    value = pod["metadata"]["annotations"].get(keys.ORDERS)
    return [entry.id for entry in parse_orders(value).captures] if value else []


def test_a_replica_that_lags_costs_a_pod_its_first_packets_and_no_capture(
    api: PrivateApi, network: Balancer, controller: ControllerProcess
) -> None:
    name = api.namespace("shop", **{keys.INJECT: keys.INJECT_ENABLED})
    early = api.create_pod(name, {**bare_pod(), "metadata": {"name": "early"}}, dry_run=False)
    assert captures_of(early) == []
    other = api.namespace("other", **{keys.INJECT: keys.INJECT_ENABLED})
    eventually("pods are injected there", lambda: injected(api.create_pod(other, bare_pod())))
    # What is told of captures after this one waits in the network.
    network.pause_seconds = LAG_SECONDS
    capture(api, other, "first")
    eventually("the replica knows it", lambda: captures_of(api.create_pod(other, bare_pod())))
    uid = capture(api, name, "all")
    late = api.create_pod(name, {**bare_pod(), "metadata": {"name": "late"}}, dry_run=False)
    assert keys.INJECTED in late["metadata"]["annotations"]
    assert captures_of(late) == []  # else the replica did not lag, and nothing is shown

    def ordered(pod: str) -> bool:
        return captures_of(json.loads(api.client.request("GET", paths.pod(name, pod)))) == [uid]

    for pod in ("early", "late"):
        eventually(f"pod {pod} has its orders", lambda pod=pod: ordered(pod))
