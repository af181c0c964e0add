from __future__ import annotations

from typing import Any

import pytest

from nightcap.cli import ephemeral
from nightcap.contract.confinement import Profile


def a_pod(**spec: Any) -> dict[str, Any]:
    metadata = spec.pop("metadata", {})
    status = spec.pop("status", {"phase": "Running"})
    return {
        "metadata": {"name": "web", "namespace": "shop", **metadata},
        "spec": {"containers": [{"name": "app"}], **spec},
        "status": status,
    }


SIDECAR = {"name": "nightcap", "image": "sidecar:2"}
INJECTED = {"annotations": {"nightcap.dev/injected": "{}"}, "creationTimestamp": "2026-01-02"}


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        pytest.param(a_pod(), "", id="bare"),
        pytest.param(a_pod(metadata=INJECTED), "", id="a copied annotation"),
        pytest.param(a_pod(metadata=INJECTED, initContainers=[SIDECAR]),
                     "start pod/web --follow -n shop", id="has a sidecar"),
        pytest.param(a_pod(hostNetwork=True), "traffic of the whole node", id="host network"),
        pytest.param(a_pod(os={"name": "windows"}), "Windows", id="windows"),
        pytest.param(a_pod(metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}),
                     "static pod", id="static"),
        pytest.param(a_pod(status={"phase": "Succeeded"}), "has ended", id="ended"),
        pytest.param(a_pod(metadata={"deletionTimestamp": "x"}), "is ending", id="ending"),
    ],
)  # fmt: skip
def test_pods_that_cannot_be_attached_to_are_told_why(pod: dict[str, Any], words: str) -> None:
    said = ephemeral.objection(pod)
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.parametrize(
    ("level", "tried"),
    [
        (None, (Profile.STRICT, Profile.BASELINE)),
        ("privileged", (Profile.STRICT,)),
        ("baseline", (Profile.BASELINE,)),
        ("restricted", ()),
        ("nonsense", (Profile.STRICT, Profile.BASELINE)),
    ],
)
def test_profiles_are_those_of_the_level(level: str | None, tried: tuple[Profile, ...]) -> None:
    assert ephemeral.profiles(level) == tried


def test_names_are_numbered_because_none_can_be_used_again() -> None:
    assert ephemeral.next_name(a_pod()) == "nightcap-attach-1"
    taken = [{"name": "debugger-1"}, {"name": "nightcap-attach-9"}, {"name": "nightcap-attach-10"}]
    assert ephemeral.next_name(a_pod(ephemeralContainers=taken)) == "nightcap-attach-11"


def test_container_has_one_capability_and_ends_by_itself() -> None:
    made = ephemeral.container(a_pod(), "nightcap-attach-1", "sidecar:2", Profile.STRICT, 600)
    assert made["command"] == ["/nightcap/errand", "linger", "720"]
    context = made["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    assert context["readOnlyRootFilesystem"]
    assert "appArmorProfile" not in context
    confined = a_pod(securityContext={"appArmorProfile": {"type": "Localhost"}})
    made = ephemeral.container(confined, "x", "sidecar:2", Profile.BASELINE, 600)
    assert "add" not in made["securityContext"]["capabilities"]
    assert made["securityContext"]["appArmorProfile"] == {"type": "RuntimeDefault"}


def in_state(**state: Any) -> dict[str, Any]:
    statuses = [{"name": "other", "state": {"running": {}}}, {"name": "x", "state": state}]
    return a_pod(status={"ephemeralContainerStatuses": statuses})


def test_whether_it_runs_or_never_will() -> None:
    assert not ephemeral.is_running(a_pod(), "x")
    assert not ephemeral.is_running(in_state(waiting={"reason": "ContainerCreating"}), "x")
    assert ephemeral.is_running(in_state(running={}), "x")
    pulling = in_state(waiting={"reason": "ErrImagePull", "message": "no such image"})
    with pytest.raises(ValueError, match="ErrImagePull: no such image"):
        ephemeral.is_running(pulling, "x")
    ended = in_state(terminated={"exitCode": 0})
    with pytest.raises(ValueError, match=r"exit code 0.*release that knows attach"):
        ephemeral.is_running(ended, "x")


def test_image_is_that_of_the_newest_sidecar_or_of_the_webhook() -> None:
    old = a_pod(metadata={**INJECTED, "creationTimestamp": "2025"},
                initContainers=[{**SIDECAR, "image": "sidecar:1"}])  # fmt: skip
    new = a_pod(metadata=INJECTED, initContainers=[SIDECAR])
    assert ephemeral.image_of_sidecars([a_pod(), old, new]) == "sidecar:2"
    assert ephemeral.image_of_sidecars([a_pod()]) is None
    env = [{"name": "OTHER", "value": "1"}, {"name": "NIGHTCAP_SIDECAR_IMAGE", "value": "s:3"}]
    deployment = {"spec": {"template": {"spec": {"containers": [{"name": "w", "env": env}]}}}}
    assert ephemeral.image_of_webhook(deployment) == "s:3"
