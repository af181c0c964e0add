"""Webhooks of others that strip `restartPolicy: Always` from our container."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nightcap.kube.errors import ApiError
from tests.apiserver.private import Installation, PrivateApi
from tests.apiserver.stripping import StrippingWebhook
from tests.apiserver.test_resources import a_pod, sidecar

POLICY = "nightcap-sidecar"


@pytest.fixture
def stripping(tmp_path: Path) -> Iterator[StrippingWebhook]:
    server = StrippingWebhook(tmp_path)
    yield server
    server.close()


@pytest.fixture
def strip(api: PrivateApi, stripping: StrippingWebhook) -> Iterator[Callable[[str, str], None]]:
    """Configures the stripping webhook under a name, and takes it away again."""
    names = []

    def configure(name: str, reinvocation: str) -> None:
        names.append(name)
        api.apply(stripping.configuration(name, reinvocation))

    yield configure
    for name in names:
        api.kubectl("delete", "mutatingwebhookconfiguration", name)


def stripped_pod(**meta: Any) -> dict[str, Any]:
    theirs = {"name": "theirs", "image": "registry.local/app:1", "restartPolicy": "Always"}
    pod = a_pod(initContainers=[theirs])
    pod["metadata"]["labels"] = {"strip": "please", **meta}
    return pod


def until_stripped(api: PrivateApi, namespace: str) -> dict[str, Any]:
    """The pod as soon as the stripping webhook is called: their own sidecar shows it."""
    deadline = time.monotonic() + 20
    while True:
        created = api.create_pod(namespace, stripped_pod())
        if "restartPolicy" not in created["spec"]["initContainers"][-1]:
            return created
        assert time.monotonic() < deadline, created["spec"]["initContainers"]
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["a-stripping-webhook", "z-stripping-webhook"])
def test_what_is_stripped_before_or_after_us_is_put_back(
    api: PrivateApi, namespace: Callable[..., str], strip: Callable[[str, str], None], name: str
) -> None:
    strip(name, "Never")
    assert sidecar(until_stripped(api, namespace()))["restartPolicy"] == "Always"


def test_what_is_left_without_is_refused_with_what_to_do(
    api: PrivateApi,
    namespace: Callable[..., str],
    strip: Callable[[str, str], None],
    installation: Installation,
) -> None:
    """A webhook that is called again after us has the last word; the policy has the very last."""
    name = namespace()
    strip("z-stripping-webhook", "IfNeeded")
    left = until_stripped(api, name)  # without the policy: a pod that would never start
    assert "restartPolicy" not in sidecar(left)
    try:
        api.apply(*installation.documents("sidecar-policy.yaml"))
        deadline = time.monotonic() + 20
        while True:
            try:
                api.create_pod(name, stripped_pod())
            except ApiError as error:
                said = str(error)
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "container nightcap lost its restartPolicy Always" in said
        assert "nightcap.dev/inject=disabled" in said
        # What the message says to do works, and nobody else is in its way.
        api.create_pod(name, stripped_pod(**{"nightcap.dev/inject": "disabled"}))
        assert sidecar(api.create_pod(name, a_pod()))["restartPolicy"] == "Always"
        taken = a_pod(initContainers=[{"name": "nightcap", "image": "registry.local/app:1"}])
        assert "restartPolicy" not in sidecar(api.create_pod(name, taken))
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            api.kubectl("delete", kind, POLICY)
