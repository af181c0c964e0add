"""What the controller may do to the cluster, as values.

Decisions return these; `controller.apply` performs them.
"""

from dataclasses import dataclass, field
from typing import Any

from nightcap.contract import keys
from nightcap.contract.captures import PacketCapture
from nightcap.contract.objects import ObjectMeta
from nightcap.contract.orders import CaptureOrder


@dataclass(frozen=True, slots=True)
class Ref:
    """One object of the cluster as it was when the decision was made.

    Attributes:
        namespace: Empty for a namespace itself.
        resource_version: Of the copy that was looked at, so that what was done to that
            very copy is not done again while its change is on its way back to us.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = "v1"
    resource_version: str = ""

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0]


@dataclass(frozen=True, slots=True)
class PatchOrders:
    """Write a pod's orders annotation, or remove it.

    Attributes:
        ids: The captures that are in the value.
        is_backlog: Whether nothing happened to this pod: all pods were looked at, as after a
            start. Such orders wait for those that somebody asked for a moment ago.
        begun: Entries that run from now on, for people to know; `over`: those that go.
    """

    pod: Ref
    value: str | None
    ids: frozenset[str] = frozenset()
    is_backlog: bool = field(default=False, compare=False)
    begun: tuple[CaptureOrder, ...] = field(default=(), compare=False)
    over: tuple[CaptureOrder, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Replace a capture's status; `old` is what is there now."""

    capture: Ref
    status: dict[str, Any]
    old: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CreateCapture:
    """Create the capture that an annotation stands for.

    Attributes:
        fingerprint: Of what the annotations ask for; a refusal holds for it alone.
        source: Value of the label `keys.SOURCE`.
        subjects: Who asked, to be told when the API server refuses.
    """

    namespace: str
    name: str
    source: str
    spec: dict[str, Any]
    fingerprint: str
    subjects: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateCapture:
    """Merge fields into the spec of a capture that an annotation stands for."""

    capture: Ref
    spec: dict[str, Any]
    fingerprint: str
    subjects: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteCapture:
    """Delete a capture whose time to live is over, and so its files."""

    capture: Ref


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Tell people, on the object that they will look at."""

    regarding: Ref
    type: str
    reason: str
    message: str
    action: str


Action = PatchOrders | UpdateStatus | CreateCapture | UpdateCapture | DeleteCapture | RecordEvent


def subject_of(action: Action) -> Ref | None:
    """The object that an action changes or speaks of; None where it is not there yet."""
    match action:
        case PatchOrders(pod=ref) | RecordEvent(regarding=ref):
            return ref
        case UpdateStatus(capture=ref) | UpdateCapture(capture=ref) | DeleteCapture(capture=ref):
            return ref
        case CreateCapture():
            return None


def name_of(action: Action) -> str:
    """The name of an action's object, whether or not it is there yet."""
    if isinstance(action, CreateCapture):
        return action.name
    subject = subject_of(action)
    return subject.name if subject is not None else ""


def namespace_of(action: Action) -> str:
    """The namespace that an action concerns."""
    if isinstance(action, CreateCapture):
        return action.namespace
    subject = subject_of(action)
    return (subject.namespace or subject.name) if subject is not None else ""


def uid_of(action: Action) -> str:
    """The pod or capture that an action changes; "" where that is not there yet."""
    subject = subject_of(action)
    return subject.uid if subject is not None else ""


def version_of(action: Action) -> str:
    """The version of its object that was decided on; "" where that is not there yet."""
    subject = subject_of(action)
    return subject.resource_version if subject is not None else ""


def pod_ref(metadata: ObjectMeta) -> Ref:
    """Name a pod."""
    return Ref(
        kind="Pod",
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )


def namespace_ref(metadata: ObjectMeta) -> Ref:
    """Name a namespace."""
    return Ref(
        kind="Namespace",
        namespace="",
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )


def capture_ref(capture: PacketCapture) -> Ref:
    """Name a PacketCapture of either group."""
    metadata = capture.metadata
    return Ref(
        kind=keys.KIND,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        api_version=keys.API_VERSIONS[capture.group],
        resource_version=metadata.resource_version,
    )
