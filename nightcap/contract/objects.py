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


class ManagedMetadata(Struct, frozen=True):
    labels: dict[str, Any] | None = field(default=None, name="f:labels")


class ManagedObject(Struct, frozen=True):
    metadata: ManagedMetadata = field(default=ManagedMetadata(), name="f:metadata")


class ManagedFields(Struct, frozen=True):
    """Which fields somebody wrote last, and when."""

    time: datetime | None = None
    fields: ManagedObject = field(default=ManagedObject(), name="fieldsV1")

    @property
    def labels(self) -> dict[str, Any]:
        """Keys of labels, each behind `f:`."""
        return self.fields.metadata.labels or {}


class NamespaceMeta(ObjectMeta, frozen=True, rename="camel"):
    managed_fields: tuple[ManagedFields, ...] = ()


class Namespace(Struct, frozen=True):
    """A namespace (`v1` Namespace)."""

    metadata: NamespaceMeta = NamespaceMeta()


class ConfigMap(Struct, frozen=True):
    """A config map (`v1` ConfigMap)."""

    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


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


Quantity = str | int | float
"""An amount as Kubernetes writes it, such as `250m`, `1Gi` or 2."""


class LimitRangeItem(Struct, frozen=True, rename="camel"):
    type: str = ""
    min: dict[str, Quantity] | None = None
    max: dict[str, Quantity] | None = None
    default: dict[str, Quantity] | None = None
    default_request: dict[str, Quantity] | None = None
    max_limit_request_ratio: dict[str, Quantity] | None = None


class LimitRangeSpec(Struct, frozen=True):
    limits: tuple[LimitRangeItem, ...] | None = None


class LimitRange(Struct, frozen=True):
    """Bounds and defaults of a namespace's containers and pods (`v1` LimitRange)."""

    metadata: ObjectMeta = ObjectMeta()
    spec: LimitRangeSpec = LimitRangeSpec()

    @property
    def items(self) -> tuple[LimitRangeItem, ...]:
        return self.spec.limits or ()


class ScopeExpression(Struct, frozen=True, rename="camel", gc=False):
    scope_name: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class ScopeSelector(Struct, frozen=True, rename="camel"):
    match_expressions: tuple[ScopeExpression, ...] | None = None


class ResourceQuotaSpec(Struct, frozen=True, rename="camel"):
    hard: dict[str, Quantity] | None = None
    scopes: tuple[str, ...] | None = None
    scope_selector: ScopeSelector | None = None


class ResourceQuotaStatus(Struct, frozen=True):
    hard: dict[str, Quantity] | None = None
    used: dict[str, Quantity] | None = None


class ResourceQuota(Struct, frozen=True):
    """What a namespace may use in all, and uses (`v1` ResourceQuota)."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    status: ResourceQuotaStatus = ResourceQuotaStatus()

    @property
    def hard(self) -> dict[str, Quantity]:
        return self.status.hard or self.spec.hard or {}

    @property
    def scopes(self) -> tuple[ScopeExpression, ...]:
        """Its scopes, all in one form; it counts the pods that all of them match."""
        plain = (ScopeExpression(scope, "Exists") for scope in self.spec.scopes or ())
        selector = self.spec.scope_selector or ScopeSelector()
        return (*plain, *(selector.match_expressions or ()))
