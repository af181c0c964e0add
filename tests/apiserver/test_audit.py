"""What the webhook decided is in the API server's own audit log, under the webhook's name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nightcap
from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.errors import ApiError
from tests.apiserver.private import Installation, PrivateApi
from tests.apiserver.site import bare_pod, eventually

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # The least that a policy may keep of a request.
    "rules": [
        {
            "level": "Metadata",
            "omitStages": ["RequestReceived"],
            "verbs": ["create"],
            "resources": [
                {"group": "", "resources": ["pods"]},
                {"group": keys.GROUP, "resources": [keys.PLURAL]},
            ],
        },
        {"level": "None"},
    ],
}


class Audited:
    """An API server that writes an audit log, with our webhook beside it."""

    def __init__(self, folder: Path) -> None:
        policy = folder / "audit-policy"
        policy.write_text(json.dumps(POLICY))
        self._log = folder / "audit.log"
        flags = f"--audit-policy-file={policy}", f"--audit-log-path={self._log}"
        self.api = PrivateApi(folder, *flags)

    def annotations(self, namespace: str, resource: str = "pods") -> dict[str, str]:
        """Ours of the newest record of a namespace, by their name behind the webhook's."""

        def found() -> dict[str, Any] | None:
            records = (json.loads(line) for line in self._log.read_text().splitlines())
            newest = None
            for record in records:
                about = record["objectRef"]
                if (about["namespace"], about["resource"]) == (namespace, resource):
                    newest = record
            return newest

        record = eventually(f"a record of {resource} in {namespace}", found)
        return {
            key: value
            for key, value in record.get("annotations", {}).items()
            if key.partition("/")[0].endswith("nightcap.dev")
        }


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    audited = Audited(tmp_path_factory.mktemp("audited"))
    try:
        Installation(audited.api)
        yield audited
    finally:
        audited.api.close()


def opened(audited: Audited, name: str, **labels: str) -> str:
    return audited.api.namespace(name, **{keys.INJECT: keys.INJECT_ENABLED, **labels})


def host_network(pod: dict[str, Any]) -> None:
    pod["spec"]["hostNetwork"] = True


def shares_our_name(pod: dict[str, Any]) -> None:
    pod["spec"]["volumes"] = [{"name": keys.SPOOL_VOLUME, "emptyDir": {}}]


def as_it_is(pod: dict[str, Any]) -> None:
    """Nothing is wrong with it."""


LEVEL = "pod-security.kubernetes.io/enforce"


@pytest.mark.parametrize(
    ("change", "level", "expected"),
    [
        pytest.param(
            as_it_is, "privileged", {"decision": "injected", "release": nightcap.__version__},
            id="injected",
        ),
        pytest.param(
            as_it_is, "baseline", {"decision": "injected", "release": nightcap.__version__},
            id="baseline",
        ),
        pytest.param(
            host_network, "privileged", {"decision": "skipped", "reason": "host-network"},
            id="host-network",
        ),
        pytest.param(
            shares_our_name, "privileged", {"decision": "skipped", "reason": "name-taken"},
            id="name-taken",
        ),
    ],
)  # fmt: skip
def test_a_pods_record_says_what_was_decided_and_why(
    audited: Audited,
    change: Callable[[dict[str, Any]], None],
    level: str,
    expected: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    name = opened(audited, f"pod-{request.node.callspec.id}", **{LEVEL: level})
    pod = bare_pod()
    change(pod)
    audited.api.create_pod(name, pod)
    webhook = f"{level}.inject.nightcap.dev"
    assert audited.annotations(name) == {
        f"{webhook}/{key}": value for key, value in expected.items()
    }


def test_a_pod_that_the_restricted_level_keeps_without_sidecar_is_recorded_so(
    audited: Audited,
) -> None:
    name = opened(audited, "pod-restricted", **{LEVEL: "restricted"})
    # The level itself refuses this pod, after we were asked.
    with pytest.raises(ApiError, match="violates PodSecurity"):
        audited.api.create_pod(name, bare_pod())
    assert audited.annotations(name) == {
        "restricted.inject.nightcap.dev/decision": "skipped",
        "restricted.inject.nightcap.dev/reason": "namespace-restricted",
    }


def test_captures_are_named_in_the_record_of_a_pod_that_is_born_into_them(
    audited: Audited,
) -> None:
    name = opened(audited, "born-into-a-capture")
    made = audited.api.client.request("POST", paths.packetcaptures(name), body=a_capture(""))
    uid = json.loads(made)["metadata"]["uid"]

    def named() -> bool:
        audited.api.create_pod(name, bare_pod())
        return "privileged.inject.nightcap.dev/captures" in audited.annotations(name)

    eventually("the webhook knows the capture", named)
    assert audited.annotations(name)["privileged.inject.nightcap.dev/captures"] == uid


def test_a_capture_that_is_refused_is_recorded_as_denied(audited: Audited) -> None:
    name = opened(audited, "refused-capture")
    with pytest.raises(ApiError, match="is refused"):
        audited.api.client.request(
            "POST", paths.packetcaptures(name), body=a_capture("no ( filter")
        )
    assert audited.annotations(name, keys.PLURAL) == {
        "packetcaptures.nightcap.dev/decision": "denied"
    }


def a_capture(expression: str) -> dict[str, Any]:
    return {
        "apiVersion": keys.API_VERSIONS[keys.GROUP],
        "kind": keys.KIND,
        "metadata": {"name": "all"},
        "spec": {"filter": expression} if expression else {},
    }
