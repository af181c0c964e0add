"""Objects for the controller's tests: only what matters is written in a test."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from msgspec import Raw, structs
from msgspec import json as msgjson

from controller.actions import (
    Action,
    CreateCapture,
    DeleteCapture,
    PatchOrders,
    RecordEvent,
    UpdateCapture,
    UpdateStatus,
)
from controller.view import (
    Memory,
    NamespaceView,
    PodReport,
    RetrievalView,
    UnreadableCapture,
    decode_capture,
    judge,
)
from nightcap.contract import keys
from nightcap.contract.captures import PacketCapture
from nightcap.contract.objects import (
    Container,
    Namespace,
    NamespaceMeta,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
)
from nightcap.contract.reports import Gap, Lost, Reason, Report, State

NOW = 1_800_000_000.0
COLLECTORS = (("10.96.0.9", 20443),)
INJECTED = json.dumps({"release": "0.1.0", "orders": 1, "profile": "baseline"})
_numbers = itertools.count(1)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def uid_of(name: str) -> str:
    return f"{name.encode().hex()[:60]}"


def a_pod(
    name: str = "web-1",
    *,
    injected: bool = True,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    owner: tuple[str, str] | None = None,
    created: float = NOW - 3600,
    deleted: float | None = None,
    phase: str = "Running",
    host_network: bool = False,
    node: str = "node-a",
    namespace: str = "shop",
) -> Pod:
    annotations = dict(annotations or {})
    if injected:
        annotations[keys.INJECTED] = INJECTED
    owners = (OwnerReference(kind=owner[0], name=owner[1], controller=True),) if owner else ()
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            uid=uid_of(name),
            resource_version="1",
            labels=labels or {},
            annotations=annotations,
            owner_references=owners,
            creation_timestamp=at(created),
            deletion_timestamp=None if deleted is None else at(deleted),
        ),
        spec=PodSpec(
            node_name=node,
            host_network=host_network,
            init_containers=(Container(keys.SIDECAR_CONTAINER),) if injected else (),
        ),
        status=PodStatus(phase=phase),
    )


def a_capture(
    name: str = "dns",
    *,
    created: float = NOW - 60,
    source: str | None = None,
    status: dict[str, Any] | None = None,
    generation: int = 1,
    deleted: float | None = None,
    namespace: str = "shop",
    group: str = keys.GROUP,
    **spec: Any,
) -> PacketCapture:
    return decode_capture(
        Raw(
            msgjson.encode(
                {
                    "apiVersion": keys.API_VERSIONS[group],
                    "metadata": {
                        "name": name,
                        "namespace": namespace,
                        "uid": uid_of(name),
                        "resourceVersion": "1",
                        "generation": generation,
                        "creationTimestamp": at(created),
                        **({"deletionTimestamp": at(deleted)} if deleted is not None else {}),
                        "labels": {keys.SOURCE: source} if source else {},
                    },
                    "spec": spec,
                    **({"status": status} if status is not None else {}),
                }
            )
        )
    )


def a_namespace(
    *,
    enabled: bool = True,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    deleted: float | None = None,
    created: float | None = None,
    name: str = "shop",
) -> Namespace:
    labels = dict(labels or {})
    if enabled:
        labels[keys.INJECT] = keys.INJECT_ENABLED
    return Namespace(
        metadata=NamespaceMeta(
            name=name,
            uid="aa",
            labels=labels,
            annotations=annotations,
            creation_timestamp=None if created is None else at(created),
            deletion_timestamp=None if deleted is None else at(deleted),
        )
    )


def a_report(
    capture: str = "dns",
    pod: str = "web-1",
    *,
    state: State = State.CAPTURING,
    reason: Reason = Reason.NONE,
    seq: int = 1,
    sent: float = NOW - 1,
    received: float | None = None,
    packets: int = 10,
    size: int = 1000,
    dropped: int = 0,
    backlog: int = 0,
    lost: int = 0,
    gaps: tuple[Gap, ...] = (),
    shipped: bool = False,
    message: str = "",
    node: str = "node-a",
    files: tuple[str, ...] = (),
) -> PodReport:
    return PodReport(
        capture=uid_of(capture),
        namespace="shop",
        pod_name=pod,
        pod_uid=uid_of(pod),
        node=node,
        received_at=sent if received is None else received,
        file_count=len(files),
        file_names=files,
        report=Report(
            seq=seq,
            at=sent,
            state=state,
            reason=reason,
            message=message,
            packets=packets,
            bytes=size,
            dropped=dropped,
            backlog=backlog,
            lost=Lost(bytes=lost, gaps=gaps),
            shipped=shipped,
        ),
    )


def a_view(
    captures: list[PacketCapture] | None = None,
    pods: list[Pod] | None = None,
    reports: list[PodReport] | None = None,
    *,
    namespace: Namespace | None = None,
    memory: Memory | None = None,
    retrieval: RetrievalView | None = None,
    collectors: tuple[tuple[str, int], ...] = COLLECTORS,
) -> NamespaceView:
    by_capture: dict[str, dict[str, PodReport]] = {}
    for item in reports or []:
        by_capture.setdefault(item.capture, {})[item.pod_uid] = item
    return NamespaceView(
        namespace=namespace or a_namespace(),
        captures=tuple(judge(capture) for capture in captures or []),
        pods=tuple(pods or []),
        reports=by_capture,
        collectors=collectors,
        retrieval=retrieval or RetrievalView(),
        memory=memory or Memory(),
    )


def applied(view: NamespaceView, actions: tuple[Action, ...], now: float) -> NamespaceView:
    """The namespace after the actions were performed, as the API server would have it."""
    for action in actions:
        view = _perform(view, action, now)
    return view


def _perform(view: NamespaceView, action: Action, now: float) -> NamespaceView:
    match action:
        case RecordEvent():
            view.memory.told.add((action.regarding.uid, action.reason, action.message))
            return view
        case PatchOrders():
            pods = tuple(
                with_orders(pod, action.value) if pod.metadata.uid == action.pod.uid else pod
                for pod in view.pods
            )
            for uid in action.ids:
                view.memory.ordered_at.setdefault((uid, action.pod.uid), now)
            return _replaced(view, pods=pods)
        case UpdateStatus():
            view.memory.status_written_at[action.capture.uid] = now
            return _changed(view, action.capture.uid, lambda old: {**old, "status": action.status})
        case UpdateCapture():
            return _changed(
                view,
                action.capture.uid,
                lambda old: {
                    **old,
                    "spec": {
                        key: value
                        for key, value in {**old["spec"], **action.spec}.items()
                        if value is not None
                    },
                    "metadata": {
                        **old["metadata"],
                        "generation": old["metadata"]["generation"] + 1,
                    },
                },
            )
        case CreateCapture():
            made = a_capture(action.name, created=int(now), source=action.source, **action.spec)
            return _replaced(view, captures=(*view.captures, judge(made)))
        case DeleteCapture():
            left = tuple(judged for judged in view.captures if judged.uid != action.capture.uid)
            return _replaced(view, captures=left)


def with_orders(pod: Pod, value: str | None) -> Pod:
    annotations = dict(pod.metadata.annotations or {})
    annotations.pop(keys.ORDERS, None)
    if value is not None:
        annotations[keys.ORDERS] = value
    version = str(next(_numbers) + 1)
    metadata = structs.replace(pod.metadata, annotations=annotations, resource_version=version)
    return structs.replace(pod, metadata=metadata)


def _changed(view: NamespaceView, uid: str, change: Any) -> NamespaceView:
    captures = []
    for judged in view.captures:
        if judged.uid != uid:
            captures.append(judged)
            continue
        old = msgjson.decode(msgjson.encode(judged.capture))
        if isinstance(judged.capture, UnreadableCapture):
            new = structs.replace(judged.capture, status=change(old)["status"])
            captures.append(judge(new))
            continue
        old["spec"] = {key: value for key, value in old["spec"].items() if value is not None}
        if not old["metadata"].get("deletionTimestamp"):
            old["metadata"].pop("deletionTimestamp", None)
        captures.append(judge(decode_capture(Raw(msgjson.encode(change(old))))))
    return _replaced(view, captures=tuple(captures))


def _replaced(view: NamespaceView, **changes: Any) -> NamespaceView:
    fields = {name: getattr(view, name) for name in NamespaceView.__dataclass_fields__}
    return NamespaceView(**{**fields, **changes})
