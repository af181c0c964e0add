"""The ephemeral container that captures in a pod without a sidecar. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nightcap.contract import keys, paths
from nightcap.contract.confinement import (
    PROFILES,
    Level,
    Profile,
    brings_apparmor,
    security_context,
)

NAME: Final = "nightcap-attach"
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
SPARE_SECONDS: Final = 120
"""What the container lives longer than it may capture: to be pulled, started and reached."""
_NUMBERED: Final = re.compile(rf"{NAME}-(\d+)")
_NEVER_COMES: Final = frozenset({"ErrImageNeverPull", "InvalidImageName", "CreateContainerError",
                                 "CreateContainerConfigError", "RunContainerError"})  # fmt: skip
_PULLING_AGAIN: Final = frozenset({"ErrImagePull", "ImagePullBackOff"})

Pod = Mapping[str, Any]


def objection(pod: Pod) -> str:
    """Why this pod cannot be attached to, and what to do instead; empty if it can."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    name, namespace = metadata["name"], metadata["namespace"]
    annotations = metadata.get("annotations") or {}
    containers = {c["name"] for c in spec.get("initContainers") or ()}
    if keys.INJECTED in annotations and keys.SIDECAR_CONTAINER in containers:
        return (
            f"pod {name} has a sidecar, which needs nothing attached: "
            f"kubectl nightcap start pod/{name} --follow -n {namespace}"
        )
    if spec.get("hostNetwork"):
        return (
            f"pod {name} is on the node's own network (hostNetwork): a capture would see the "
            "traffic of the whole node, which is never done"
        )
    if (spec.get("os") or {}).get("name") == "windows":
        return f"pod {name} runs on Windows, where nothing is captured"
    if "kubernetes.io/config.mirror" in annotations:
        return f"pod {name} is a static pod of its node, which the API cannot change"
    if metadata.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return f"pod {name} has ended, or is ending; attach to one that runs"
    return ""


def profiles(level: str | None) -> tuple[Profile, ...]:
    """Which profiles to try, in this order.

    Args:
        level: The namespace's `enforce` label; None if it has none, or may not be read.
    """
    if level is None:
        # The cluster may have a level for namespaces without one.
        return (Profile.STRICT, Profile.BASELINE)
    try:
        return tuple(p for p in [PROFILES.get(Level(level))] if p is not None)
    except ValueError:
        return (Profile.STRICT, Profile.BASELINE)


def next_name(pod: Pod) -> str:
    """A name that no ephemeral container of the pod has: none can be removed or started again."""
    taken = [
        int(match[1])
        for container in pod["spec"].get("ephemeralContainers") or ()
        if (match := _NUMBERED.fullmatch(container["name"]))
    ]
    return f"{NAME}-{max(taken, default=0) + 1}"


def container(pod: Pod, name: str, image: str, profile: Profile, seconds: int) -> dict[str, Any]:
    """The container: it does nothing but live, so long that something can be run in it.

    Args:
        pod: Where it goes.
        name: From `next_name`.
        image: The sidecar's.
        profile: What Pod Security allows there.
        seconds: How long a capture may take.
    """
    confine = brings_apparmor(pod["spec"].get("securityContext"))
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [paths.ERRAND_PROGRAM, "linger", str(seconds + SPARE_SECONDS)],
        "securityContext": security_context(profile, confine=confine),
        "terminationMessagePolicy": "File",
    }


def is_running(pod: Pod, name: str) -> bool:
    """Whether an ephemeral container can be reached.

    Raises:
        ValueError: it never will be; says why.
    """
    state = _state(pod, name)
    if "terminated" in state:
        code = state["terminated"].get("exitCode")
        raise ValueError(
            f"container {name} ended at once (exit code {code}): is its image Nightcap's sidecar, "
            "of a release that knows attach?"
        )
    reason = (state.get("waiting") or {}).get("reason", "")
    if reason in _NEVER_COMES | _PULLING_AGAIN:
        message = (state.get("waiting") or {}).get("message", "")
        raise ValueError(f"container {name} does not start: {reason}: {message}")
    return "running" in state


def _state(pod: Pod, name: str) -> Mapping[str, Any]:
    for status in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ():
        if status["name"] == name:
            state: Mapping[str, Any] = status.get("state") or {}
            return state
    return {}


def image_of_sidecars(pods: Sequence[Pod]) -> str | None:
    """The image of the newest sidecar among these pods."""
    found = [
        (pod["metadata"].get("creationTimestamp") or "", container["image"])
        for pod in pods
        if keys.INJECTED in (pod["metadata"].get("annotations") or {})
        for container in pod["spec"].get("initContainers") or ()
        if container["name"] == keys.SIDECAR_CONTAINER
    ]
    return max(found)[1] if found else None


def image_of_webhook(deployment: Mapping[str, Any]) -> str | None:
    """The image that the webhook is told to inject."""
    for found in deployment["spec"]["template"]["spec"]["containers"]:
        for variable in found.get("env") or ():
            if variable["name"] == "NIGHTCAP_SIDECAR_IMAGE":
                return variable.get("value") or None
    return None
