"""Which PacketCapture objects the `nightcap.dev/capture` annotations stand for.

| annotation | its capture | what happens |
| --- | --- | --- |
| `on` | none | it is created and runs |
| `on` | runs | fields and pods that differ are brought in line |
| `on` | suspended | it runs again, from now |
| `on` | finished | nothing: `off`, then `on`, starts it again |
| `on` | a person's of that name | Warning Event |
| `on`, with a bad value | runs | nothing: Warning Event and condition |
| `on`, with a bad value | none | it is created suspended, to hold the condition |
| `off`, or absent | runs or finished | it is suspended |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

from controller.actions import (
    Action,
    CreateCapture,
    RecordEvent,
    Ref,
    UpdateCapture,
    capture_ref,
    namespace_ref,
    pod_ref,
)
from controller.view import NEVER, Judged, NamespaceView
from nightcap.contract import keys
from nightcap.contract.annotation_options import AnnotationOptions, parse_options, spec_of_options
from nightcap.contract.assignment import annotation_capture_name
from nightcap.contract.captures import PacketCapture

NAMESPACE_CAPTURE: Final = "namespace"
MAX_POD_NAMES: Final = 256
"""Names listed in a capture; pods beyond are selected by their annotation all the same."""
_SOURCES: Final = (keys.SOURCE_NAMESPACE, keys.SOURCE_POD, keys.SOURCE_CONTROLLER)
_MAX_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Request:
    """One pod's or namespace's annotation that asks for a capture.

    Attributes:
        name: Of the capture that stands for it.
        pod: The pod's name; empty for a namespace.
        options: None where a value is bad; then `faults` says which.
    """

    subject: Ref
    name: str
    source: str
    pod: str
    options: AnnotationOptions | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnnotationPlan:
    """What the annotations of one namespace come to.

    Attributes:
        faults: Name of a capture -> what is wrong with the annotations behind it.
        kept: Names of captures that may not go although they are finished: with their
            annotation still `on` they would be made again and run again.
    """

    actions: tuple[Action, ...] = ()
    faults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    wake_at: float = NEVER


def plan_annotations(view: NamespaceView, now: float) -> AnnotationPlan:
    """Compare what the annotations of a namespace ask for with the captures that there are."""
    if view.is_leaving:
        return AnnotationPlan()
    # Another group's capture may have any name; no annotation stands for it.
    existing = {
        judged.capture.metadata.name: judged
        for judged in view.captures
        if not judged.capture.is_calico
    }
    by_name: dict[str, list[Request]] = {}
    faults: dict[str, tuple[str, ...]] = {}
    actions: list[Action] = []
    wakes = [NEVER]
    for request in requests(view):
        name = request.name if request.options else _capture_of(request, existing)
        by_name.setdefault(name, []).append(request)
    for name, asking in sorted(by_name.items()):
        judged = existing.get(name)
        bad = tuple(dict.fromkeys(chain.from_iterable(request.faults for request in asking)))
        if bad:
            actions += _tell(asking, "BadAnnotation", "; ".join(bad), bad_only=True)
        if judged is not None and judged.capture.source not in _SOURCES:
            message = (
                f"a PacketCapture named {name} exists already and does not belong to this "
                "annotation; rename or delete it"
            )
            actions += _tell(asking, "NameTaken", message)
            continue
        if bad:
            faults[name] = bad
        action = _bring_in_line(name, asking, judged, now)
        if action is None:
            continue
        refusal = view.memory.refusals.get((action_namespace(action), name))
        if refusal is not None and refusal.fingerprint == action.fingerprint:
            actions += _tell(asking, "CaptureRefused", refusal.message)
            if now < refusal.retry_at:
                wakes.append(refusal.retry_at)
                continue
        actions.append(action)
    for judged in view.captures:
        if judged.capture.metadata.name not in by_name and _must_suspend(judged):
            ref = capture_ref(judged.capture)
            actions.append(UpdateCapture(ref, {"suspend": True}, "off"))
    return AnnotationPlan(
        actions=tuple(action for action in actions if not _is_told(action, view)),
        faults=faults,
        kept=frozenset(
            name
            for name in by_name
            if name in existing and existing[name].capture.source in _SOURCES
        ),
        wake_at=min(wakes),
    )


def requests(view: NamespaceView) -> Sequence[Request]:
    """Every annotation in the namespace that is there and is not `off`."""
    found: list[Request] = []
    if view.namespace is not None:
        options, faults = parse_options(view.namespace.metadata.annotations)
        if faults or (options and options.on):
            ref = namespace_ref(view.namespace.metadata)
            found.append(
                Request(ref, NAMESPACE_CAPTURE, keys.SOURCE_NAMESPACE, "", options, faults)
            )
    for pod in view.pods:
        metadata = pod.metadata
        if pod.is_over or metadata.annotation(keys.CAPTURE) is None:
            continue
        options, faults = parse_options(metadata.annotations)
        if faults or (options and options.on):
            name, source = annotation_capture_name(metadata)
            found.append(Request(pod_ref(metadata), name, source, metadata.name, options, faults))
    return found


def action_namespace(action: CreateCapture | UpdateCapture) -> str:
    """The namespace in which an action makes or changes a capture."""
    return action.namespace if isinstance(action, CreateCapture) else action.capture.namespace


def _capture_of(request: Request, existing: Mapping[str, Judged]) -> str:
    """The capture that a request with a bad value concerns.

    Options are part of the name that pods of a controller share, so a bad value names a
    capture of its own; but the pod is in another one already, which must not be disturbed.
    """
    for name, judged in sorted(existing.items()):
        capture = judged.capture
        if (
            capture.source in (keys.SOURCE_POD, keys.SOURCE_CONTROLLER)
            and request.pod in capture.spec.pod_names
            and not capture.spec.suspend
        ):
            return name
    return request.name


def _bring_in_line(
    name: str, asking: Sequence[Request], judged: Judged | None, now: float
) -> CreateCapture | UpdateCapture | None:
    good = [request for request in asking if request.options]
    subjects = tuple(request.subject for request in asking[:_MAX_TOLD])
    if judged is None:
        return _creation(name, asking, good, subjects)
    if judged.is_leaving or not good:
        return None
    wanted = _spec(good[0].options, _pod_names(asking))
    spec = _differences(judged.capture, wanted)
    if judged.capture.spec.suspend:
        spec = {**wanted, "suspend": False, "startTime": _timestamp(now), "endTime": None}
    elif judged.settings is not None and judged.settings.has_ended(now):
        return None
    if not spec:
        return None
    ref = capture_ref(judged.capture)
    return UpdateCapture(ref, spec, repr(wanted), subjects)


def _creation(
    name: str, asking: Sequence[Request], good: Sequence[Request], subjects: tuple[Ref, ...]
) -> CreateCapture:
    first = asking[0]
    namespace = first.subject.namespace or first.subject.name
    options = good[0].options if good else AnnotationOptions(on=True)
    wanted = _spec(options, _pod_names(asking))
    spec = wanted if good else {**wanted, "suspend": True}
    return CreateCapture(namespace, name, first.source, spec, repr(spec), subjects)


def _spec(options: AnnotationOptions | None, pod_names: list[str]) -> dict[str, Any]:
    return {**spec_of_options(options or AnnotationOptions(on=True)), "podNames": pod_names}


def _pod_names(asking: Sequence[Request]) -> list[str]:
    return sorted({request.pod for request in asking if request.pod})[:MAX_POD_NAMES]


def _differences(capture: PacketCapture, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `wanted` that the capture's spec does not have."""
    spec = capture.spec
    rotation = {
        "maxFileSize": str(spec.rotation.max_file_size),
        "maxFileAge": spec.rotation.max_file_age,
        "maxFiles": spec.rotation.max_files,
    }
    current = {
        "filter": spec.filter,
        "duration": spec.duration,
        "snapLength": spec.snap_length,
        "rotation": rotation,
        "podNames": list(spec.pod_names),
    }
    return {key: value for key, value in wanted.items() if current[key] != value}


def _must_suspend(judged: Judged) -> bool:
    capture = judged.capture
    return capture.source in _SOURCES and not capture.spec.suspend and not judged.is_leaving


def _tell(
    asking: Sequence[Request], reason: str, message: str, *, bad_only: bool = False
) -> list[RecordEvent]:
    concerned = [request for request in asking if request.faults or not bad_only]
    return [
        RecordEvent(
            regarding=request.subject,
            type="Warning",
            reason=reason,
            message=message[:1000],
            action="Capture",
        )
        for request in concerned[:_MAX_TOLD]
    ]


def _is_told(action: Action, view: NamespaceView) -> bool:
    return (
        isinstance(action, RecordEvent)
        and (action.regarding.uid, action.reason, action.message) in view.memory.told
    )


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
