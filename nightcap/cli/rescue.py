"""Pods that wait for the sidecar's container alone: what to say of them, and how to free them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nightcap.cli.session import SYSTEM, Session
from nightcap.cli.words import Line, Mark
from nightcap.listing import first_of

_IMAGE_VARIABLE: Final = "NIGHTCAP_SIDECAR_IMAGE"
_WEBHOOK: Final = "nightcap-webhook"
_NAMED: Final = 3
_FREE_THEM: Final = "kubectl nightcap doctor --rescue"


@dataclass(frozen=True, slots=True)
class Held:
    """A pod whose containers wait because its sidecar does not start.

    Attributes:
        index: The sidecar's place in `initContainers`.
        image: What it is to run.
        reason: In the kubelet's word, such as `ImagePullBackOff`.
        returns: Whether a controller makes it anew when it is deleted.
    """

    namespace: str
    name: str
    uid: str
    index: int
    image: str
    reason: str
    returns: bool

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def held_among(pods: Iterable[dict[str, Any]]) -> list[Held]:
    """Those of the pods that are held, by namespace and name."""
    from msgspec import convert

    from nightcap.contract.coverage import has_sidecar, holding_reason
    from nightcap.contract.keys import SIDECAR_CONTAINER
    from nightcap.contract.objects import Pod

    held = []
    for pod in pods:
        read = convert(pod, Pod)
        reason = holding_reason(read) if has_sidecar(read) else ""
        if not reason or read.metadata.deletion_timestamp is not None:
            continue
        containers = pod["spec"]["initContainers"]
        names = [container["name"] for container in containers]
        index = names.index(SIDECAR_CONTAINER)
        held.append(
            Held(
                read.metadata.namespace,
                read.metadata.name,
                read.metadata.uid,
                index,
                containers[index]["image"],
                reason,
                any(owner.controller for owner in read.metadata.owner_references),
            )
        )
    return sorted(held, key=str)


def check_switch(switch: dict[str, Any] | None) -> Line:
    """Whether new pods get their sidecar; None: nobody has ever switched injection off."""
    from msgspec import convert

    from nightcap.contract.objects import ConfigMap
    from nightcap.contract.switch import SINCE, TURN_ON, is_off, why_off

    read = convert(switch, ConfigMap) if switch is not None else None
    if not is_off(read):
        return Line(Mark.OK, "injection is on")
    since = (switch or {}).get("data", {}).get(SINCE, "")
    when = f" since {since}" if since else ""
    return Line(
        Mark.FAULT,
        f"injection is switched off{when}, new pods get no sidecar: {why_off(read)}",
        f"{_FREE_THEM} frees pods that wait; then turn it on: {TURN_ON.format(namespace=SYSTEM)}",
    )


def check_held(held: Sequence[Held]) -> Line:
    """Whether pods wait for the sidecar's container."""
    if not held:
        return Line(Mark.OK, "no pod waits for its sidecar")
    return Line(
        Mark.FAULT,
        f"{len(held)} {'pod waits' if len(held) == 1 else 'pods wait'} for the container nightcap, "
        f"image {held[0].image} ({held[0].reason}): {first_of(held, _NAMED)}",
        _FREE_THEM,
    )


def examine(session: Session) -> Iterator[Line]:
    """What `doctor` says of the switch and of pods that wait."""
    from nightcap.kube.errors import Forbidden

    try:
        yield check_switch(_switch(session))
    except Forbidden as error:
        yield Line(Mark.NOTE, f"whether injection is on is not known: {error.message}")
    held, hidden = _find(session)
    if hidden and not held:
        yield Line(Mark.NOTE, f"whether pods of other namespaces wait is not known: {hidden}")
    else:
        yield check_held(held)


def rescue(session: Session, image: str | None, *, delete: bool) -> Iterator[Line]:
    """Free every pod that waits and that the caller may change.

    Args:
        session: Whose rights count.
        image: What the pods' sidecars are to run; by default what the webhook injects now.
        delete: Delete those that no image helps and that a controller makes anew.
    """
    from nightcap.kube.errors import ApiError, Forbidden

    held, hidden = _find(session)
    if hidden:
        yield Line(
            Mark.NOTE,
            f"namespace {session.namespace} alone is looked at: {hidden}",
            "name another one with -n",
        )
    if not held:
        yield Line(Mark.OK, "no pod waits for its sidecar")
    if held and image is None:
        try:
            image = _injected_image(session)
        except ApiError as error:
            yield Line(Mark.NOTE, f"the webhook's image is not known: {error.message}")
    try:
        is_on: bool | None = check_switch(_switch(session)).mark is Mark.OK
    except Forbidden:
        is_on = None
    for pod in held:
        line = _give_image(session, pod, image)
        if line.mark is Mark.FAULT and delete:
            line = _delete(session, pod, is_on)
        yield line
    if is_on is False:
        yield check_switch(_switch(session))


def _give_image(session: Session, pod: Held, image: str | None) -> Line:
    from nightcap.kube import paths
    from nightcap.kube.agent import JSON_PATCH
    from nightcap.kube.errors import ApiError

    if image is None or image == pod.image:
        what = "no other image is known" if image is None else "the webhook injects the same one"
        return Line(
            Mark.FAULT,
            f"pod {pod} waits for image {pod.image} ({pod.reason}), and {what}",
            f"{_FREE_THEM} --image=REF with one that can be pulled, or --delete",
        )
    place = f"/spec/initContainers/{pod.index}"
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": f"{place}/image", "value": pod.image},
        {"op": "replace", "path": f"{place}/image", "value": image},
    ]
    try:
        session.client.request(
            "PATCH", paths.pod(pod.namespace, pod.name), body=patch, content_type=JSON_PATCH
        )
    except ApiError as error:
        return Line(
            Mark.FAULT,
            f"pod {pod} could not be given image {image}: {error.message}",
            "ask somebody who may patch pods there, or try --delete",
        )
    return Line(Mark.OK, f"pod {pod}: its sidecar has image {image} now (was {pod.image})")


def _delete(session: Session, pod: Held, is_on: bool | None) -> Line:
    from nightcap.contract.switch import INJECTION, OFF, SWITCH
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError

    if not pod.returns:
        return Line(
            Mark.FAULT,
            f"pod {pod} is not deleted: no controller would make it anew",
            f"kubectl -n {pod.namespace} replace --force with its manifest",
        )
    if is_on:
        return Line(
            Mark.FAULT,
            f"pod {pod} is not deleted: while injection is on it would come back as it is",
            f"switch it off first: kubectl -n {SYSTEM} create configmap {SWITCH} "
            f"--from-literal={INJECTION}={OFF}",
        )
    try:
        session.client.request(
            "DELETE",
            paths.pod(pod.namespace, pod.name),
            body={"preconditions": {"uid": pod.uid}},
        )
    except ApiError as error:
        return Line(
            Mark.FAULT,
            f"pod {pod} could not be deleted: {error.message}",
            "ask somebody who may delete pods there",
        )
    return Line(Mark.OK, f"pod {pod} is deleted; it comes back without a sidecar")


def _find(session: Session) -> tuple[list[Held], str]:
    """The held pods, and why only those of the session's namespace could be looked at."""
    from nightcap.kube import paths
    from nightcap.kube.errors import Forbidden

    pending = {"fieldSelector": "status.phase=Pending"}
    try:
        return held_among(session.items(paths.pods(), pending)), ""
    except Forbidden as error:
        hidden = error.message
    try:
        return held_among(session.items(paths.pods(session.namespace), pending)), hidden
    except Forbidden:
        return [], hidden


def _switch(session: Session) -> dict[str, Any] | None:
    from nightcap.contract.switch import SWITCH
    from nightcap.kube import paths
    from nightcap.kube.errors import NotFound

    try:
        return session.get(paths.config_map(SYSTEM, SWITCH))
    except NotFound:
        return None


def _injected_image(session: Session) -> str | None:
    from nightcap.kube import paths

    deployment = session.get(paths.deployment(SYSTEM, _WEBHOOK))
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env") or ():
            if variable["name"] == _IMAGE_VARIABLE:
                return str(variable.get("value") or "") or None
    return None
