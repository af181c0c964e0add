"""Which captures are a pod's: the one rule that webhook, controller and retrieval share."""

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass

from nightcap.contract import keys
from nightcap.contract.calico_selector import matcher_of
from nightcap.contract.captures import PacketCapture, Settings, order_of
from nightcap.contract.objects import ObjectMeta
from nightcap.contract.orders import (
    MAX_CAPTURES,
    MAX_COLLECTORS,
    MAX_ORDERS_BYTES,
    CaptureOrder,
    Orders,
    dump_orders,
)
from nightcap.contract.selectors import matches_selector

_MAX_NAME = 63


def selects(capture: PacketCapture, pod: ObjectMeta) -> bool:
    """Whether a capture is to record a pod; both of one namespace, or never.

    A capture that stands for an annotation also selects the pods that carry it and are
    not in its `podNames` yet, such as a pod that is being created.

    Args:
        capture: The capture.
        pod: The pod's metadata; at admission `name` may be empty (generateName) and
            `namespace` must have been filled in from the request.
    """
    if capture.metadata.namespace != pod.namespace or not pod.namespace:
        return False
    if capture.source in (keys.SOURCE_POD, keys.SOURCE_CONTROLLER) and _is_annotated_for(
        capture, pod
    ):
        return True
    spec = capture.spec
    if spec.pod_names:
        return bool(pod.name) and pod.name in spec.pod_names
    if capture.source in (keys.SOURCE_POD, keys.SOURCE_CONTROLLER):
        return False  # its pods are gone; an empty list here is not "every pod"
    if isinstance(spec.selector, str):
        return matcher_of(spec.selector)(pod.labels or {})
    return matches_selector(spec.selector, pod.labels)


def _is_annotated_for(capture: PacketCapture, pod: ObjectMeta) -> bool:
    if pod.annotation(keys.CAPTURE) != keys.CAPTURE_ON:
        return False
    name, _ = annotation_capture_name(pod)
    return name == capture.metadata.name


def annotation_capture_name(pod: ObjectMeta) -> tuple[str, str]:
    """Name of the capture that a pod's own annotations stand for, and its source.

    Pods of one controller with equal annotations share one capture, so that a pod of an
    annotated template is covered from its first packet. The options are part of the name
    when there are any: pods with other options have a capture of their own.

    Returns:
        (name, value of the label `keys.SOURCE`).
    """
    owner = next((owner for owner in pod.owner_references if owner.controller), None)
    if owner is None:
        return shorten(f"pod-{pod.name}"), keys.SOURCE_POD
    kind, name = owner.kind.lower(), owner.name
    template_hash = pod.label("pod-template-hash")
    if kind == "replicaset" and template_hash and name.endswith(f"-{template_hash}"):
        kind, name = "deployment", name.removesuffix(f"-{template_hash}")
    options = sorted(
        (key, value) for key in keys.OPTIONS if (value := pod.annotation(key)) is not None
    )
    if options:
        return shorten(f"{kind}-{name}-{_digest(repr(options))}"), keys.SOURCE_CONTROLLER
    return shorten(f"{kind}-{name}"), keys.SOURCE_CONTROLLER


def shorten(name: str) -> str:
    """Cut a name to 63 characters; what was cut is told apart by a hash."""
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9].rstrip('-.')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class ResolvedCapture:
    """A capture whose spec was found good, with its settings."""

    capture: PacketCapture
    settings: Settings


def orders_of_new_pod(
    pod: ObjectMeta,
    captures: Iterable[ResolvedCapture],
    collectors: tuple[tuple[str, int], ...],
    now: float,
) -> Orders:
    """The orders of a pod that is being created: every capture that runs and selects it."""
    entries = (
        order_of(resolved.capture, resolved.settings, resolved.settings.ends_at)
        for resolved in captures
        if resolved.settings.is_running(now) and selects(resolved.capture, pod)
    )
    return fitting_orders(collectors, entries)


def fitting_orders(
    collectors: tuple[tuple[str, int], ...],
    entries: Iterable[CaptureOrder],
    first: Container[str] = (),
) -> Orders:
    """Orders of as many entries as a sidecar reads; too many and it would read none at all.

    Args:
        collectors: (host, port) in the order in which they are to be tried.
        entries: In any order.
        first: Ids of the entries that take precedence, those that the pod has already:
            an entry that goes takes its spool with it.

    Returns:
        The entries by id, the lowest ids where not all fit.
    """
    chosen = sorted(entries, key=lambda entry: (entry.id not in first, entry.id))[:MAX_CAPTURES]
    orders = _by_id(collectors[:MAX_COLLECTORS], chosen)
    while len(dump_orders(orders)) > MAX_ORDERS_BYTES:
        chosen.pop()
        orders = _by_id(orders.collectors, chosen)
    return orders


def _by_id(collectors: tuple[tuple[str, int], ...], entries: Iterable[CaptureOrder]) -> Orders:
    return Orders(collectors, tuple(sorted(entries, key=lambda entry: entry.id)))
