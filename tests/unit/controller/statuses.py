"""The status that the controller would write, as tests look at it."""

from typing import Any

from controller.actions import UpdateStatus
from controller.reconcile import reconcile
from controller.view import NamespaceView
from nightcap.contract.reports import Reason, State
from tests.unit.controller.builders import NOW, a_capture, a_pod, a_report, a_view, applied


def status_of(view: NamespaceView, now: float = NOW, capture: str = "dns") -> dict[str, Any]:
    """The status after everything else was done."""
    for _ in range(2):
        view.memory.status_written_at.clear()
        view = applied(view, reconcile(view, now).actions, now)
    judged = next(item for item in view.captures if item.capture.metadata.name == capture)
    return judged.capture.status or {}


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in status["conditions"] if item["type"] == kind)


def outcome(status: dict[str, Any], kind: str) -> tuple[str, str]:
    found = condition(status, kind)
    return found["status"], found["reason"]


def writes(view: NamespaceView, now: float) -> list[UpdateStatus]:
    return [a for a in reconcile(view, now).actions if isinstance(a, UpdateStatus)]


def ordered_view(report=None, pod=None) -> NamespaceView:
    view = a_view([a_capture()], [pod or a_pod()], [report] if report else [])
    return applied(view, reconcile(view, NOW).actions, NOW)


WAITING = a_report(state=State.WAITING, packets=0, size=0)
CAPTURING = a_report()
LOOPING = a_report(reason=Reason.LOOP, message="our own upload")
FULL = a_report(state=State.FINISHED, reason=Reason.SIZE, shipped=True)
FAILED = a_report(state=State.FAILED, reason=Reason.NO_PRIVILEGE, message="no CAP_NET_RAW")
