"""What the controller knows of one namespace at one moment: the input of every decision."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from nightcap.contract import keys
from nightcap.contract.captures import BadCapture, PacketCapture, Settings, parse_capture, resolve
from nightcap.contract.ceilings import Ceiling, beyond_number, under_ceiling
from nightcap.contract.objects import Namespace, ObjectMeta, Pod
from nightcap.contract.reports import Report

NEVER = math.inf


class UnreadableCapture(PacketCapture, frozen=True, rename="camel"):
    """A capture whose spec is not of the kind that the schema asks for.

    It exists all the same: to overlook it would take its entries out of the orders, and
    with them what the pods have recorded.
    """

    fault: str = ""


class _WithoutSpec(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    status: Any = None
    api_version: str = keys.API_VERSIONS[keys.GROUP]


_REST = msgspec.json.Decoder(_WithoutSpec)


def decode_capture(raw: msgspec.Raw) -> PacketCapture:
    """Read a capture from the API; a spec that cannot be read becomes its fault."""
    try:
        return parse_capture(raw)
    except BadCapture as error:
        rest = _REST.decode(raw)
        status = rest.status if isinstance(rest.status, dict) else None
        return UnreadableCapture(
            metadata=rest.metadata,
            status=status,
            api_version=rest.api_version,
            fault="; ".join(error.faults),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A capture and what its spec comes to: settings, or the faults.

    Attributes:
        beyond: What it asks for beyond its namespace's ceiling; each begins with the rule's name.
    """

    capture: PacketCapture
    settings: Settings | None
    faults: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        return self.capture.metadata.uid

    @property
    def is_leaving(self) -> bool:
        """Whether somebody has deleted it and a finalizer keeps it for a while."""
        return self.capture.metadata.deletion_timestamp is not None

    def is_running(self, now: float) -> bool:
        settings = self.settings
        if settings is None or self.is_leaving or self.beyond:
            return False
        return settings.is_running(now)


def judge(capture: PacketCapture, ceiling: Ceiling | None = None) -> Judged:
    """Resolve a capture's spec, keeping what is wrong with it and what is beyond a ceiling."""
    if isinstance(capture, UnreadableCapture):
        return Judged(capture, None, (capture.fault,))
    try:
        settings, beyond = under_ceiling(capture, resolve(capture), ceiling)
    except BadCapture as error:
        return Judged(capture, None, error.faults)
    return Judged(capture, settings, beyond=beyond)


def crowded(captures: Iterable[Judged], ceiling: Ceiling | None, now: float) -> tuple[Judged, ...]:
    """The captures of a namespace, those beyond its `maxCaptures` marked.

    Args:
        captures: As they were judged one by one.
        ceiling: What holds in the namespace.
        now: Seconds since the epoch.
    """
    captures = tuple(captures)
    counted = [
        (judged.capture, judged.settings)
        for judged in captures
        if judged.settings is not None and not judged.beyond and not judged.is_leaving
    ]
    beyond = beyond_number(counted, ceiling, now)
    if not beyond:
        return captures
    return tuple(
        replace(judged, beyond=(beyond[judged.uid],)) if judged.uid in beyond else judged
        for judged in captures
    )


@dataclass(frozen=True, slots=True)
class PodReport:
    """The latest that one pod's sidecar said of one capture.

    Attributes:
        received_at: By the collector's clock, seconds since the epoch.
        file_count: Files that retrieval keeps of this pod.
        file_names: Names of the newest of them, sorted.
        refused: Why retrieval's store did not take its last append; empty when it did.
    """

    capture: str
    namespace: str
    pod_name: str
    pod_uid: str
    node: str
    report: Report
    received_at: float
    file_count: int = 0
    file_names: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An annotation capture that the API server would not have.

    Attributes:
        fingerprint: Of what was asked; anything else may be tried at once.
    """

    fingerprint: str
    message: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process remembers to pace itself; losing it costs a write, never the truth.

    Attributes:
        status_written_at: By capture uid.
        ordered_at: By (capture uid, pod uid): when the pod's orders first named the capture.
        refusals: By (namespace, name) of annotation captures.
        told: (uid, reason, message) of events that were recorded.
        pods_told: Capture uid -> uids of the pods that were told of it.
    """

    status_written_at: dict[str, float] = field(default_factory=dict)
    ordered_at: dict[tuple[str, str], float] = field(default_factory=dict)
    refusals: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    told: set[tuple[str, str, str]] = field(default_factory=set)
    pods_told: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetrievalView:
    """How the collectors answer when they are asked for reports.

    Attributes:
        unreachable: Addresses that did not answer lately, sorted.
        known: Whether there is any endpoint at all.
        asked: False until every endpoint was asked once: before, nothing can be said of pods.
    """

    unreachable: tuple[str, ...] = ()
    known: bool = True
    asked: bool = True

    @property
    def is_reachable(self) -> bool:
        return self.known and not self.unreachable


@dataclass(frozen=True, slots=True)
class NamespaceView:
    """One namespace.

    Attributes:
        namespace: None when it is not known (deleted while its objects still go).
        reports: Capture uid -> pod uid -> latest report.
        collectors: (host, port) in the order in which sidecars try them.
        ceiling: What its captures may come to at most; None where nothing is limited.
        injection_off: Why new pods get no sidecar at all, a sentence; empty while they do.
    """

    namespace: Namespace | None
    captures: tuple[Judged, ...]
    pods: tuple[Pod, ...]
    reports: Mapping[str, Mapping[str, PodReport]] = field(default_factory=dict)
    collectors: tuple[tuple[str, int], ...] = ()
    retrieval: RetrievalView = RetrievalView()
    ceiling: Ceiling | None = None
    injection_off: str = ""
    memory: Memory = field(default_factory=Memory)

    @property
    def is_leaving(self) -> bool:
        """Whether nothing new may be made in it."""
        return self.namespace is None or self.namespace.metadata.deletion_timestamp is not None
