"""What the webhook looks at in a pod and a namespace: narrow views, read and never written back.

A pod that went through a typed model loses the fields that the model does not know;
that is how several injectors deleted `restartPolicy: Always` from other people's
sidecars. So these views are for reading alone: what is changed is said as JSON Patch
(`injection`), against the JSON that the API server sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from nightcap.contract.objects import LimitRange, ObjectMeta, Quantity, ResourceQuota

_EMPTY = Raw(b"null")


class Resources(Struct, frozen=True, gc=False):
    """`resources` of a container or of a pod."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class VolumeUse(Struct, frozen=True, rename="camel", gc=False):
    """One of `volumeMounts` or `volumeDevices`."""

    name: str = ""
    mount_path: str = ""


class EnvVar(Struct, frozen=True, gc=False):
    """One of `env`."""

    name: str = ""
    value: str = ""


class Container(Struct, frozen=True, rename="camel"):
    """A container; what is only read of our own stays `Raw` until it is asked for."""

    name: str = ""
    restart_policy: str | None = None
    security_context: dict[str, Any] | None = None
    resources: Resources | None = None
    volume_mounts: tuple[VolumeUse, ...] | None = None
    volume_devices: tuple[VolumeUse, ...] | None = None
    env: Raw = _EMPTY
    lifecycle: Raw = _EMPTY

    @property
    def volumes(self) -> Iterator[str]:
        for use in self.volume_mounts or ():
            yield use.name
        for use in self.volume_devices or ():
            yield use.name


class Volume(Struct, frozen=True, rename="camel"):
    """A volume; sources that ours have."""

    name: str = ""
    downward_api: dict[str, Any] | None = field(default=None, name="downwardAPI")
    projected: dict[str, Any] | None = None
    empty_dir: dict[str, Any] | None = None


class PodOS(Struct, frozen=True, gc=False):
    """`spec.os`."""

    name: str = ""


class Expression(Struct, frozen=True, gc=False):
    """One of a node selector term's `matchExpressions`."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class NodeTerm(Struct, frozen=True, rename="camel", gc=False):
    """One of `nodeSelectorTerms`; the terms are OR-ed."""

    match_expressions: tuple[Expression, ...] | None = None


class NodeTerms(Struct, frozen=True, rename="camel", gc=False):
    """A required node affinity."""

    node_selector_terms: tuple[NodeTerm, ...] | None = None


class NodeAffinity(Struct, frozen=True, gc=False):
    """`spec.affinity.nodeAffinity`."""

    required: NodeTerms | None = field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Struct, frozen=True, rename="camel", gc=False):
    """`spec.affinity`."""

    node_affinity: NodeAffinity | None = None


class PodSpec(Struct, frozen=True, rename="camel"):
    """`spec` of a pod."""

    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    host_network: bool | None = None
    share_process_namespace: bool | None = None
    os: PodOS | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    security_context: dict[str, Any] | None = None
    resources: Resources | None = None
    overhead: dict[str, Quantity] | None = None
    priority_class_name: str | None = None
    active_deadline_seconds: int | None = None

    @property
    def all_containers(self) -> Iterator[Container]:
        yield from self.init_containers or ()
        yield from self.containers or ()
        yield from self.ephemeral_containers or ()


class Pod(Struct, frozen=True):
    """A pod as it comes in an AdmissionReview."""

    spec: PodSpec
    metadata: ObjectMeta | None = None

    @property
    def meta(self) -> ObjectMeta:
        return self.metadata or ObjectMeta()


class NotAtOnce(RuntimeError):
    """An answer has to wait for a watch that may be a moment behind."""


class NotAPod(ValueError):
    """What came as a pod has not the form of one."""


_POD = msgspec.json.Decoder(Pod)
_ENV = msgspec.json.Decoder(tuple[EnvVar, ...] | None)


def read_pod(raw: bytes | Raw) -> Pod:
    """Look at a pod.

    Raises:
        NotAPod: a field that is looked at is missing or of another kind.
    """
    try:
        return _POD.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAPod(str(error)[:200]) from error


def env_of(container: Container) -> dict[str, str]:
    """The plain values of a container's environment; empty when it cannot be read."""
    try:
        return {variable.name: variable.value for variable in _ENV.decode(container.env) or ()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """What the webhook knows of a pod's namespace.

    Attributes:
        enabled: Whether it carries the label; None when it is not known (a namespace so
            new that the watch has not told of it: the API server has asked us, so it has it).
        limit_ranges: What bounds and completes its containers' resources.
        quotas: What bounds the resources of all its pods together.
    """

    name: str
    enabled: bool | None = None
    limit_ranges: tuple[LimitRange, ...] = ()
    quotas: tuple[ResourceQuota, ...] = ()

    @property
    def limits_counted(self) -> frozenset[str]:
        """Names of resources whose limits a quota counts, so that each container must have one."""
        counted = (name for quota in self.quotas for name in quota.hard)
        prefix = "limits."
        return frozenset(name[len(prefix) :] for name in counted if name.startswith(prefix))

    def default_limits(self) -> dict[str, Quantity]:
        """The limits that a container without any is given."""
        found: dict[str, Quantity] = {}
        for limit_range in self.limit_ranges:
            for item in limit_range.items:
                if item.type == "Container":
                    found = {**(item.default or {}), **found}
        return found
