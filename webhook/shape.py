"""What our sidecar looks like in a pod: its profiles, volumes and mounts, and how to know it.

Fixed by the release; what an installation or a pod changes (image, sizes, resources)
is `injection`'s.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from nightcap.contract import keys, paths
from nightcap.contract.confinement import CAPABILITIES
from nightcap.contract.confinement import PROFILES as PROFILES
from nightcap.contract.confinement import Level as Level
from nightcap.contract.confinement import Profile as Profile
from nightcap.contract.confinement import security_context as security_context
from webhook.facts import Container, Pod, Volume

MOUNTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        keys.ORDERS_VOLUME: paths.ORDERS_DIR,
        keys.SPOOL_VOLUME: paths.SPOOL_DIR,
        keys.TOKEN_VOLUME: paths.TOKEN_DIR,
        # An existing mount at this path keeps the ServiceAccount plugin, which runs again
        # after us, from mounting the pod's own API token into our container.
        keys.NO_API_VOLUME: paths.API_TOKEN_DIR,
    }
)
"""Volume → where it is mounted in our container."""

ORDERS_SOURCE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "items": [
            {
                "path": paths.ORDERS_FILE,
                "fieldRef": {
                    "apiVersion": "v1",
                    "fieldPath": f"metadata.annotations['{keys.ORDERS}']",
                },
            }
        ]
    }
)
TOKEN_SOURCE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "sources": [
            {
                "serviceAccountToken": {
                    "audience": keys.TOKEN_AUDIENCE,
                    "expirationSeconds": 3600,
                    "path": paths.TOKEN_FILE,
                }
            }
        ]
    }
)


def mentions(pod: Pod) -> tuple[str, ...]:
    """Our names that a pod uses, for whatever it is: `container nightcap`, `volume ...`."""
    spec = pod.spec
    found = {
        f"container {container.name}"
        for container in spec.all_containers
        if container.name == keys.SIDECAR_CONTAINER
    }
    used = {volume.name for volume in spec.volumes or ()}
    for container in spec.all_containers:
        used.update(container.volumes)
    found.update(f"volume {name}" for name in used & keys.VOLUMES)
    return tuple(sorted(found))


def find_sidecar(pod: Pod) -> int | None:
    """The place in `initContainers` of a sidecar that is ours, whole and ours alone.

    True after our own injection, whatever other webhooks have since added to the
    container, and for a copy of an injected pod. `restartPolicy` is not looked at:
    some webhooks strip it, and then it is ours to put back.

    Returns:
        None when there is none, when the container or one of its volumes only has the
        name, or when another container mounts one of the volumes.
    """
    named = [c for c in pod.spec.all_containers if c.name == keys.SIDECAR_CONTAINER]
    if len(named) != 1 or not _volumes_are_ours(pod):
        return None
    for index, container in enumerate(pod.spec.init_containers or ()):
        if container is named[0]:
            return index if _is_our_container(container) else None
    return None


def profile_of(container: Container) -> Profile | None:
    """The profile that a container's securityContext is of, if of any.

    What it drops is not looked at: policies of others add to that, in every container.
    """
    context = dict(container.security_context or {})
    capabilities = context.pop("capabilities", None) or {}
    wanted = security_context(Profile.STRICT, confine=False)
    del wanted["capabilities"]
    if not _covers(context, wanted) or not isinstance(capabilities, dict):
        return None
    for profile, asked in CAPABILITIES.items():
        if (capabilities.get("add") or []) == asked.get("add", []):
            return profile
    return None


def _is_our_container(container: Container) -> bool:
    mounts = {(use.name, use.mount_path) for use in container.volume_mounts or ()}
    return profile_of(container) is not None and set(MOUNTS.items()) <= mounts


def _volumes_are_ours(pod: Pod) -> bool:
    volumes = {volume.name: volume for volume in pod.spec.volumes or ()}
    if not keys.VOLUMES.issubset(volumes):
        return False
    others = (c for c in pod.spec.all_containers if c.name != keys.SIDECAR_CONTAINER)
    if any(name in keys.VOLUMES for container in others for name in container.volumes):
        return False
    return all(_is_our_volume(volumes[name]) for name in keys.VOLUMES)


def _is_our_volume(volume: Volume) -> bool:
    match volume.name:
        case keys.ORDERS_VOLUME:
            return _covers(volume.downward_api, ORDERS_SOURCE)
        case keys.TOKEN_VOLUME:
            return _covers(volume.projected, TOKEN_SOURCE)
        case _:
            return volume.empty_dir is not None


def _covers(actual: Any, wanted: Any) -> bool:
    """Whether a JSON value holds all that is wanted; it may hold more keys."""
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            key in actual and _covers(actual[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(_covers(a, w) for a, w in zip(actual, wanted, strict=True))
        )
    return type(actual) is type(wanted) and bool(actual == wanted)
