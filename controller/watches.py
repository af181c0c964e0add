"""What the controller watches, and whom each watch tells."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from controller.actions import RecordEvent
from controller.misfits import not_understood
from controller.polling import COLLECTOR_SERVICE, EndpointSlice
from controller.settings import Settings
from controller.trim import namespace_decoder, pod_decoder
from controller.view import decode_capture
from controller.world import World
from nightcap.contract import keys
from nightcap.contract.captures import PacketCapture
from nightcap.contract.ceilings import CaptureCeiling, parse_ceiling
from nightcap.contract.objects import ConfigMap, Namespace, Pod, Service
from nightcap.contract.switch import SWITCH
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.groups import GroupReflector
from nightcap.kube.reflector import Change, HasMetadata, Reflector

_CA_CONFIG_MAP: Final = "nightcap-ca"

T = TypeVar("T", bound=HasMetadata)


@dataclass(frozen=True, slots=True)
class Watches:
    """Everything that is watched."""

    captures: Reflector[PacketCapture]
    calico: GroupReflector[PacketCapture]
    pods: Reflector[Pod]
    namespaces: Reflector[Namespace]
    services: Reflector[Service]
    slices: Reflector[EndpointSlice]
    roots: Reflector[ConfigMap]
    switch: Reflector[ConfigMap]
    ceilings: Reflector[CaptureCeiling]

    @property
    def needed(self) -> tuple[Reflector[Any] | GroupReflector[Any], ...]:
        """Those that must have synced before anything is decided.

        The optional group as well: to decide before it is known whether it is there would take
        its captures from the orders, and from the pods what they have recorded.
        """
        return (
            self.captures,
            self.calico,
            self.pods,
            self.namespaces,
            self.services,
            self.switch,
            self.ceilings,
        )

    @property
    def all(self) -> tuple[Reflector[Any] | GroupReflector[Any], ...]:
        return (*self.needed, self.slices, self.roots)

    def not_understood(self) -> Iterator[RecordEvent]:
        """What there is to say of objects that cannot be read."""
        for reflector in self.all:
            for misfit in reflector.malformed:
                yield not_understood(reflector.name, misfit.metadata, misfit.error)


def make_watches(client: KubeClient, settings: Settings, world: World) -> Watches:
    """Prepare the watches; each tells the world."""
    ours = settings.namespace
    config_maps = paths.config_maps(ours)
    return Watches(
        captures=Reflector(
            client,
            paths.packetcaptures(),
            decode_capture,
            name="packetcaptures",
            on_change=world.on_capture,
        ),
        calico=GroupReflector(
            client,
            lambda on_change: Reflector(
                client,
                paths.packetcaptures(group=keys.CALICO_GROUP),
                decode_capture,
                name="calico-packetcaptures",
                on_change=on_change,
            ),
            name="calico-packetcaptures",
            on_change=world.on_capture,
        ),
        pods=Reflector(client, paths.pods(), pod_decoder(), name="pods", on_change=world.on_pod),
        namespaces=Reflector(
            client,
            paths.namespaces(),
            namespace_decoder(),
            name="namespaces",
            on_change=world.on_namespace,
        ),
        services=_one(
            client,
            paths.services(ours),
            Service,
            COLLECTOR_SERVICE,
            name="services",
            on_change=world.on_service,
        ),
        slices=Reflector(
            client,
            paths.endpoint_slices(ours),
            msgspec.json.Decoder(EndpointSlice).decode,
            name="endpointslices",
            label_selector=f"kubernetes.io/service-name={COLLECTOR_SERVICE}",
        ),
        roots=_one(client, config_maps, ConfigMap, _CA_CONFIG_MAP, name="roots"),
        switch=_one(
            client, config_maps, ConfigMap, SWITCH, name="switch", on_change=world.on_switch
        ),
        ceilings=Reflector(
            client,
            paths.capture_ceilings(ours),
            parse_ceiling,
            name="captureceilings",
            on_change=world.on_ceiling,
        ),
    )


def _one(
    client: KubeClient,
    path: str,
    kind: type[T],
    object_name: str,
    *,
    name: str,
    on_change: Callable[[Change[T]], None] | None = None,
) -> Reflector[T]:
    """The watch of the one object of that name."""
    return Reflector(
        client,
        path,
        msgspec.json.Decoder(kind).decode,
        name=name,
        field_selector=f"metadata.name={object_name}",
        on_change=on_change,
    )
