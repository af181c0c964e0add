"""What reconcile writes into pods, as tests look at it."""

from dataclasses import replace

from controller.actions import PatchOrders
from controller.reconcile import orders_in, reconcile
from controller.view import NamespaceView
from nightcap.contract.orders import CaptureOrder, Orders, parse_orders
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_pod,
    a_view,
    applied,
)


def patches(view: NamespaceView, now: float = NOW) -> dict[str, Orders | None]:
    """Pod name -> the orders that are written (None: removed)."""
    return {
        action.pod.name: None if action.value is None else parse_orders(action.value)
        for action in reconcile(view, now).actions
        if isinstance(action, PatchOrders)
    }


def entries(view: NamespaceView, pod: str = "web-1") -> dict[str, CaptureOrder]:
    """Capture name -> entry that a pod's annotation holds now."""
    found = next(item for item in view.pods if item.metadata.name == pod)
    return {entry.name: entry for entry in orders_in(found).captures}


def settled(view: NamespaceView, now: float = NOW) -> NamespaceView:
    return applied(view, reconcile(view, now).actions, now)


def with_captures(view: NamespaceView, *captures) -> NamespaceView:
    return replace(view, captures=a_view(list(captures)).captures)


def running(**spec) -> NamespaceView:
    """A pod that has the orders of one running capture."""
    return settled(a_view([a_capture(**spec)], [a_pod()]))
