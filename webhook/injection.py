"""The patch that gives a pod its sidecar and its orders: JSON Patch, additions alone. Pure.

What a user wrote is never replaced or removed. The annotations that are Nightcap's own
(`orders`, `injected`, `not-injected`) are: a template that brings them must not decide them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct

from nightcap.contract import keys, paths
from nightcap.contract.confinement import brings_apparmor
from nightcap.contract.orders import (
    MAX_CAPTURES,
    MAX_ORDERS_BYTES,
    ORDERS_VERSION,
    Orders,
    dump_orders,
)
from webhook.facts import Pod, env_of
from webhook.resources import KEPT_FREE_BYTES, SidecarResources
from webhook.shape import (
    MOUNTS,
    ORDERS_SOURCE,
    TOKEN_SOURCE,
    Profile,
    profile_of,
    security_context,
)

MAX_ANNOTATIONS_BYTES: Final = 256 * 2**10
"""Of all keys and values together (apimachinery TotalAnnotationSizeLimitB)."""

_OURS: Final = (keys.INJECTED, keys.ORDERS, keys.NOT_INJECTED)
_PATHS: Final = tuple((key, f"/metadata/annotations/{key.replace('/', '~1')}") for key in _OURS)
"""Each of ours with its place in a pod, as a JSON Pointer."""
_NO_API_SIZE: Final = "1Mi"
_ROOT_ONLY: Final = 0o400
_ALL_MAY_READ: Final = 0o444
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Template:
    """What is the same for every sidecar that is injected now.

    Attributes:
        collector_name: The TLS name that the sidecar will expect, with the root's generation.
        collector_ca: That root, PEM.
        spool_size: The spool volume's `sizeLimit`.
        spool_bytes: What the segments may take of it.
        wait: How long a pod that is born into a capture waits for it to be open; empty
            for not at all.
    """

    image: str
    release: str
    collector_name: str
    collector_ca: str
    spool_size: str
    spool_bytes: int
    wait: str


def with_spool(template: Template, volume_bytes: int | None) -> Template:
    """The template with a spool volume of another size; None leaves it as it is."""
    if volume_bytes is None:
        return template
    return replace(
        template, spool_size=str(volume_bytes), spool_bytes=volume_bytes - KEPT_FREE_BYTES
    )


class Operation(Struct, frozen=True):
    """One operation of a JSON Patch (RFC 6902)."""

    op: str
    path: str
    value: Any = UNSET


Patch = tuple[Operation, ...]


def encode_patch(patch: Patch) -> bytes:
    """Write a patch as JSON."""
    return _ENCODER.encode(patch)


def inject(
    pod: Pod, template: Template, profile: Profile, resources: SidecarResources, orders: str
) -> Patch:
    """Give a pod its sidecar: container, volumes and annotations.

    Args:
        pod: A pod that uses none of our names (`eligibility`).
        template: The installation's.
        profile: What Pod Security allows there.
        resources: What quality of service needs.
        orders: Value of the orders annotation; empty for a dormant sidecar, which gets no
            hook and costs the pod's start nothing.
    """
    container = _container(
        template,
        profile,
        resources,
        confine=brings_apparmor(pod.spec.security_context),
        waits=bool(orders),
    )
    wanted = {keys.INJECTED: injected_value(template.release, profile)}
    if orders:
        wanted[keys.ORDERS] = orders
    return (
        *_set_annotations(pod, wanted),
        *_append(pod.spec.volumes is None, "/spec/volumes", _volumes(template.spool_size)),
        # First in line: it sees the traffic of the other init containers and stops last.
        Operation("add", "/spec/initContainers", [container])
        if pod.spec.init_containers is None
        else Operation("add", "/spec/initContainers/0", container),
    )


def refresh(pod: Pod, index: int, template: Template, orders: str) -> Patch:
    """Mend the sidecar that a pod has already; an empty patch when nothing is missing.

    Others may have stripped `restartPolicy`; a capture may have started between two calls,
    and the pod may be a copy that carries its original's orders.
    """
    container = (pod.spec.init_containers or ())[index]
    profile = profile_of(container) or Profile.STRICT
    release = env_of(container).get(paths.ENV_RELEASE) or template.release
    wanted = {keys.INJECTED: injected_value(release, profile)}
    if orders:
        wanted[keys.ORDERS] = orders
    patch = list(_set_annotations(pod, wanted))
    at = f"/spec/initContainers/{index}"
    if container.restart_policy != "Always":
        patch.append(Operation("add", f"{at}/restartPolicy", "Always"))
    hook = _hook(template) if orders else None
    if hook is not None and bytes(container.lifecycle) == b"null":
        patch.append(Operation("add", f"{at}/lifecycle", hook))
    return tuple(patch)


def strip(pod: Pod, why: str = "") -> Patch:
    """Take from a pod without sidecar the annotations that only an injected one has.

    Args:
        pod: That one.
        why: What its annotation `not-injected` is to say, if there is room for it; empty for none.
    """
    room = MAX_ANNOTATIONS_BYTES - _annotation_bytes(pod) - len(keys.NOT_INJECTED)
    told = {keys.NOT_INJECTED: why} if why and len(why.encode()) <= room else {}
    return tuple(_set_annotations(pod, told))


def has_room(pod: Pod, template: Template) -> bool:
    """Whether the API server will accept the pod with our annotation on top."""
    injected = injected_value(template.release, Profile.BASELINE)
    return _annotation_bytes(pod) + len(keys.INJECTED) + len(injected) <= MAX_ANNOTATIONS_BYTES


def orders_value(pod: Pod, template: Template, orders: Orders) -> str:
    """The orders annotation of a new pod, as many of its captures as fit.

    What does not fit is left to the controller, which can tell somebody.
    """
    room = MAX_ANNOTATIONS_BYTES - _annotation_bytes(pod) - len(keys.ORDERS) - len(keys.INJECTED)
    room -= len(injected_value(template.release, Profile.BASELINE))
    captures = orders.captures[:MAX_CAPTURES]
    while captures:
        value = dump_orders(Orders(orders.collectors, captures))
        if len(value.encode()) <= min(room, MAX_ORDERS_BYTES):
            return value
        captures = captures[:-1]
    return ""


@lru_cache(maxsize=64)
def injected_value(release: str, profile: Profile) -> str:
    """The value of the `injected` annotation."""
    value = {"release": release, "orders": ORDERS_VERSION, "profile": profile}
    return _ENCODER.encode(value).decode()


def _annotation_bytes(pod: Pod) -> int:
    """Bytes of all annotations but ours."""
    return sum(
        len(key.encode()) + len(value.encode())
        for key, value in (pod.meta.annotations or {}).items()
        if key not in _OURS
    )


def _set_annotations(pod: Pod, wanted: Mapping[str, str]) -> list[Operation]:
    """Make our annotations what is wanted of them, no more than needed."""
    found = pod.meta.annotations
    if not found:
        if not wanted:
            return []
        if pod.metadata is None:
            return [Operation("add", "/metadata", {"annotations": dict(wanted)})]
        if found is None:
            return [Operation("add", "/metadata/annotations", dict(wanted))]
    found = found or {}
    patch = []
    for key, path in _PATHS:
        value = wanted.get(key)
        if value is None and key in found:
            patch.append(Operation("remove", path))
        elif value is not None and key not in found:
            patch.append(Operation("add", path, value))
        elif value is not None and found[key] != value:
            patch.append(Operation("replace", path, value))
    return patch


def _append(absent: bool, path: str, values: tuple[Raw, ...]) -> tuple[Operation, ...]:
    if absent:
        return (Operation("add", path, values),)
    return tuple(Operation("add", f"{path}/-", value) for value in values)


@lru_cache(maxsize=8)
def _volumes(spool_size: str) -> tuple[Raw, ...]:
    volumes: tuple[dict[str, Any], ...] = (
        {
            "name": keys.ORDERS_VOLUME,
            "downwardAPI": {"defaultMode": _ALL_MAY_READ, **ORDERS_SOURCE},
        },
        {"name": keys.SPOOL_VOLUME, "emptyDir": {"sizeLimit": spool_size}},
        {"name": keys.TOKEN_VOLUME, "projected": {"defaultMode": _ROOT_ONLY, **TOKEN_SOURCE}},
        {"name": keys.NO_API_VOLUME, "emptyDir": {"sizeLimit": _NO_API_SIZE}},
    )
    return tuple(Raw(_ENCODER.encode(volume)) for volume in volumes)


# A burst of pods differs in little: each container is written once.
@lru_cache(maxsize=64)
def _container(
    template: Template,
    profile: Profile,
    resources: SidecarResources,
    *,
    confine: bool,
    waits: bool,
) -> Raw:
    limits = {"limits": dict(resources.limits)} if resources.limits else {}
    container: dict[str, Any] = {
        "name": keys.SIDECAR_CONTAINER,
        "image": template.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [paths.DORMANT_PROGRAM],
        "restartPolicy": "Always",
        "env": [
            {"name": paths.ENV_COLLECTOR_NAME, "value": template.collector_name},
            {"name": paths.ENV_COLLECTOR_CA, "value": template.collector_ca},
            {"name": paths.ENV_SPOOL_BYTES, "value": str(template.spool_bytes)},
            {"name": paths.ENV_RELEASE, "value": template.release},
        ],
        "resources": {"requests": dict(resources.requests), **limits},
        "volumeMounts": [
            {"name": name, "mountPath": path}
            | ({} if name == keys.SPOOL_VOLUME else {"readOnly": True})
            for name, path in MOUNTS.items()
        ],
        "securityContext": security_context(profile, confine=confine),
        # The server's defaults, said, so that the container reads the same on every call.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    hook = _hook(template) if waits else None
    if hook is not None:
        container["lifecycle"] = hook
    return Raw(_ENCODER.encode(container))


def _hook(template: Template) -> dict[str, Any] | None:
    if not template.wait:
        return None
    command = [paths.DORMANT_PROGRAM, "--wait", template.wait]
    return {"postStart": {"exec": {"command": command}}}
