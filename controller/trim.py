"""Pods and namespaces with only what decisions look at: ten thousand pods are held for months."""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import structs

from nightcap.contract import keys
from nightcap.contract.coverage import MIRROR
from nightcap.contract.objects import (
    Container,
    ContainerStatus,
    Namespace,
    OwnerReference,
    Pod,
    PodOS,
    PodSpec,
    PodStatus,
)

_OURS: Final = f"{keys.GROUP}/"
_SIDECAR: Final = (Container(keys.SIDECAR_CONTAINER),)

_Pairs = tuple[tuple[str, str], ...]


def pod_decoder() -> Callable[[msgspec.Raw], Pod]:
    """Reads a pod and keeps what `trimmed` keeps."""
    decoder = msgspec.json.Decoder(Pod)
    return lambda raw: trimmed(decoder.decode(raw))


def trimmed(pod: Pod) -> Pod:
    """The same pod without what no decision looks at.

    Of annotations ours and the one of mirror pods stay, of containers our sidecar, of its
    state why it waits. Texts that many pods share are kept once.
    """
    metadata = pod.metadata
    return Pod(
        metadata=structs.replace(
            metadata,
            namespace=sys.intern(metadata.namespace),
            generate_name="",
            generation=0,
            labels=_shared(_pairs(metadata.labels)),
            annotations=_shared(
                tuple(
                    pair
                    for pair in _pairs(metadata.annotations)
                    if pair[0].startswith(_OURS) or pair[0] == MIRROR
                )
            ),
            owner_references=_shared_owners(
                tuple(owner for owner in metadata.owner_references if owner.controller)
            ),
        ),
        spec=_shared_spec(
            pod.spec.node_name,
            pod.spec.host_network,
            any(item.name == keys.SIDECAR_CONTAINER for item in pod.spec.init_containers),
            pod.spec.os.name if pod.spec.os else "",
        ),
        status=_shared_status(pod.status.phase, _why_waiting(pod)),
    )


def namespace_decoder() -> Callable[[msgspec.Raw], Namespace]:
    """Reads a namespace and keeps all its labels, and of its annotations ours."""
    decoder = msgspec.json.Decoder(Namespace)

    def decode(raw: msgspec.Raw) -> Namespace:
        metadata = decoder.decode(raw).metadata
        ours = {
            key: value
            for key, value in (metadata.annotations or {}).items()
            if key.startswith(_OURS)
        }
        return Namespace(structs.replace(metadata, annotations=ours or None))

    return decode


def _pairs(texts: dict[str, str] | None) -> _Pairs:
    return tuple((texts or {}).items())


@lru_cache(maxsize=2048)
def _shared(pairs: _Pairs) -> dict[str, str] | None:
    """A dict that many pods share; nobody changes what a decoder has read."""
    return {sys.intern(key): value for key, value in pairs} or None


@lru_cache(maxsize=2048)
def _shared_owners(owners: tuple[OwnerReference, ...]) -> tuple[OwnerReference, ...]:
    return owners


@lru_cache(maxsize=2048)
def _shared_spec(node: str, host_network: bool, has_sidecar: bool, system: str) -> PodSpec:
    return PodSpec(
        node_name=node,
        host_network=host_network,
        init_containers=_SIDECAR if has_sidecar else (),
        os=PodOS(system) if system else None,
    )


@lru_cache(maxsize=256)
def _shared_status(phase: str, reason: str) -> PodStatus:
    if not reason:
        return PodStatus(phase=phase)
    waits = ContainerStatus(keys.SIDECAR_CONTAINER, state={"waiting": {"reason": reason}})
    return PodStatus(phase=phase, init_containers=(waits,))


def _why_waiting(pod: Pod) -> str:
    for container in pod.status.init_containers:
        waiting = (container.state or {}).get("waiting")
        if container.name == keys.SIDECAR_CONTAINER and isinstance(waiting, dict):
            return str(waiting.get("reason", "unknown"))
    return ""
