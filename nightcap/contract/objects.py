"""The parts of Kubernetes objects that Nightcap reads, as narrow Structs.

Narrow on purpose: an untyped pod costs about forty times the memory of these.
Unknown fields are ignored, as a reader of an API must.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct, field


class OwnerReference(Struct, frozen=True, gc=False):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    generate_name: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()

    def annotation(self, key: str) -> str | None:
        return self.annotations.get(key) if self.annotations else None

    def label(self, key: str) -> str | None:
        return self.labels.get(key) if self.labels else None


class Container(Struct, frozen=True, gc=False):
    name: str = ""


class PodOS(Struct, frozen=True, gc=False):
    name: str = ""


class PodSpec(Struct, frozen=True, rename="camel"):
    node_name: str = ""
    host_network: bool = False
    init_containers: tuple[Container, ...] = ()
    os: PodOS | None = None


class PodAddress(Struct, frozen=True, gc=False):
    ip: str = ""


class ContainerStatus(Struct, frozen=True, rename="camel"):
    name: str = ""
    started: bool | None = None
    state: dict[str, Any] | None = None


class PodStatus(Struct, frozen=True):
    phase: str = ""
    ip: str = field(default="", name="podIP")
    ips: tuple[PodAddress, ...] = field(default=(), name="podIPs")
    init_containers: tuple[ContainerStatus, ...] = field(default=(), name="initContainerStatuses")


class Pod(Struct, frozen=True):
    """A pod as the API server stores it (`v1` Pod)."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_over(self) -> bool:
        """Whether no container of it will run again."""
        return self.status.phase in ("Succeeded", "Failed")


class Namespace(Struct, frozen=True):
    """A namespace (`v1` Namespace)."""

    metadata: ObjectMeta = ObjectMeta()


class ServiceSpec(Struct, frozen=True, rename="camel"):
    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")


class Service(Struct, frozen=True):
    """A service (`v1` Service)."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()


class Secret(Struct, frozen=True):
    """A secret (`v1` Secret); values are base64 text."""

    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None
