"""What the controller watches, and whom each watch tells."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from controller.actions import RecordEvent
from controller.misfits import not_understood
from controller.polling import EndpointSlice
from controller.settings import Settings
from controller.trim import namespace_decoder, pod_decoder
from controller.view import decode_capture
from controller.world import World
from nightcap.contract.captures import PacketCapture
from nightcap.contract.ceilings import CaptureCeiling, parse_ceiling
from nightcap.contract.objects import ConfigMap, Namespace, Pod, Service
from nightcap.contract.switch import SWITCH
from nightcap.contract.uploads import COLLECTOR_SERVICE
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.groups import GroupReflector
from nightcap.kube.reflector import Reflector
from nightcap.kube.watches import watch_captures, watch_one

_CA_CONFIG_MAP: Final = "nightcap-ca"


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
    captures, calico = watch_captures(client, decode_capture, world.on_capture)
    return Watches(
        captures=captures,
        calico=calico,
        pods=Reflector(client, paths.pods(), pod_decoder(), name="pods", on_change=world.on_pod),
        namespaces=Reflector(
            client,
            paths.namespaces(),
            namespace_decoder(),
            name="namespaces",
            on_change=world.on_namespace,
        ),
        services=watch_one(
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
        roots=watch_one(client, config_maps, ConfigMap, _CA_CONFIG_MAP, name="roots"),
        switch=watch_one(
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
