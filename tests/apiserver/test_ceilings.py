"""Ceilings as the API server and our webhook apply them."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.errors import ApiError, Invalid
from tests.apiserver.private import Installation, PrivateApi

CEILINGS = paths.capture_ceilings("nightcap-system")
_PATIENCE_SECONDS = 20


def a_ceiling(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": keys.API_VERSIONS[keys.GROUP],
        "kind": "CaptureCeiling",
        "metadata": {"name": name},
        "spec": spec,
    }


def a_capture(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": keys.API_VERSIONS[keys.GROUP],
        "kind": keys.KIND,
        "metadata": {"name": name},
        "spec": spec,
    }


def refusal(api: PrivateApi, namespace: str, capture: dict[str, Any]) -> str:
    """What the API server says; empty if it takes the capture."""
    try:
        api.client.request("POST", paths.packetcaptures(namespace), body=capture)
    except ApiError as error:
        return error.message
    return ""


def refused(api: PrivateApi, namespace: str, capture: dict[str, Any]) -> str:
    """Its refusal, once the webhook's watch has brought the ceiling."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (said := refusal(api, namespace, capture)):
        assert time.monotonic() < deadline, "the capture is taken"
        name = capture["metadata"]["name"]
        api.client.request("DELETE", paths.packetcapture(namespace, name))
        time.sleep(0.05)
    return said


def test_a_capture_beyond_the_ceiling_is_refused_with_the_rules_name(
    api: PrivateApi, installation: Installation, namespace: Callable[..., str]
) -> None:
    shop, bank = namespace(), namespace()
    spec = {"namespaces": [shop], "maxDuration": "1h", "maxCaptures": 1, "snapLength": 96}
    api.client.request("POST", CEILINGS, body=a_ceiling(shop, **spec))
    said = refused(api, shop, a_capture("long", duration="2h"))
    assert "maxDuration: " in said
    assert f"ceiling {shop}" in said
    assert refusal(api, bank, a_capture("long", duration="2h")) == ""
    assert refusal(api, shop, a_capture("first")) == ""
    assert "maxCaptures: " in refused(api, shop, a_capture("second"))
    stopped = api.kubectl(
        "-n", shop, "patch", "packetcaptures.nightcap.dev", "first", "--type=merge",
        "-p", json.dumps({"spec": {"suspend": True}}),
    )  # fmt: skip
    assert stopped.returncode == 0, stopped.stderr
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while refusal(api, shop, a_capture("second")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    resumed = api.kubectl(
        "-n", shop, "patch", "packetcaptures.nightcap.dev", "first", "--type=merge",
        "-p", json.dumps({"spec": {"suspend": False}}),
    )  # fmt: skip
    # Unless the watch has not brought the second yet, which the controller would catch.
    assert resumed.returncode == 0 or "maxCaptures: " in resumed.stderr


@pytest.mark.parametrize(
    "spec",
    [
        {"maxDuration": "soon"},
        {"maxDuration": "0h"},
        {"maxSize": "-1"},
        {"maxCaptures": -1},
        {"snapLength": 0},
        {"namespaces": ["Not A Name"]},
        {"interfaces": ["a/b"]},
    ],
)
def test_a_ceiling_that_means_nothing_is_refused_by_its_schema(
    api: PrivateApi, installation: Installation, spec: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        api.client.request("POST", CEILINGS, body=a_ceiling("wrong", **spec))


def test_whoever_administers_a_namespace_cannot_write_its_ceiling(
    api: PrivateApi, installation: Installation, namespace: Callable[..., str]
) -> None:
    shop = namespace()
    made = api.kubectl(
        "-n", shop, "create", "rolebinding", "owner", "--clusterrole=admin", "--user=owner"
    )
    assert made.returncode == 0, made.stderr
    for where in ("nightcap-system", shop):
        asked = api.kubectl(
            "-n", where, "auth", "can-i", "create", "captureceilings.nightcap.dev", "--as=owner"
        )
        assert asked.stdout.strip() == "no", where
