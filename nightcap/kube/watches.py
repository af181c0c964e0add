"""What several programs watch in the same way. Nothing is asked before what is returned starts."""

from collections.abc import Callable

import msgspec

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.groups import GroupReflector
from nightcap.kube.reflector import Change, Reflector, T

_CALICO = "calico-packetcaptures"


def watch_one(
    client: KubeClient,
    path: str,
    kind: type[T],
    object_name: str,
    *,
    name: str = "",
    on_change: Callable[[Change[T]], None] | None = None,
) -> Reflector[T]:
    """The watch of one object.

    Args:
        client: The API server.
        path: Of the list that the object is in, if it is there.
        kind: What is kept of it.
        object_name: Its name.
        name: For logs and metrics; the object's by default.
        on_change: As a reflector's.
    """
    return Reflector(
        client,
        path,
        msgspec.json.Decoder(kind).decode,
        name=name or object_name,
        field_selector=f"metadata.name={object_name}",
        on_change=on_change,
    )


def watch_captures(
    client: KubeClient,
    decode: Callable[[msgspec.Raw], T],
    on_change: Callable[[Change[T]], None] = lambda _: None,
) -> tuple[Reflector[T], GroupReflector[T]]:
    """The watches of captures: those of our own group, and those of Calico's while it is ours.

    Args:
        client: The API server.
        decode: Turns one capture's JSON into what is kept.
        on_change: Told of both.
    """

    def calico(tell: Callable[[Change[T]], None]) -> Reflector[T]:
        path = paths.packetcaptures(group=keys.CALICO_GROUP)
        return Reflector(client, path, decode, name=_CALICO, on_change=tell)

    return (
        Reflector(
            client, paths.packetcaptures(), decode, name="packetcaptures", on_change=on_change
        ),
        GroupReflector(client, calico, name=_CALICO, on_change=on_change),
    )
