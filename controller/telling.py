"""What people are told, as Events, of writes that were done.

On the capture: each change of what its `Recording` condition says, a condition that turns
False, and the end. On pods: that a capture begins and that it is over, for the first pods of
each capture only; with ten thousand of them the capture's own Events say it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controller.actions import Action, DeleteCapture, PatchOrders, RecordEvent, Ref, UpdateStatus
from controller.view import Memory
from controller.wording import timestamp
from nightcap.contract.captures import FOREVER
from nightcap.contract.orders import CaptureOrder

MAX_PODS_TOLD: Final = 20
"""Pods of one capture that get Events."""

SAID_OF_RECORDING: Final = {
    "Scheduled": "Scheduled",
    "NoPods": "NoPods",
    "Capturing": "Started",
    "Suspended": "Suspended",
    "TimeOver": "Finished",
    "LimitReached": "Finished",
    "PodsFinished": "Finished",
}
"""Reason of the condition -> reason of the Event."""
_WARNED_OF: Final = frozenset(
    {"Valid", "WithinCeiling", "PodsCovered", "Reporting", "Storing", "ClocksAgree"}
)
"""Conditions that should be True: AnnotationsValid is told where the annotation is."""
MEANT_SO: Final = frozenset({"PodsLeftOut"})
"""Reasons why one of them is False that nobody has to be warned of."""

_WARNED_WHEN: Final = frozenset(
    {("Recording", "PodsFailed"), ("Recording", "PodsInTrouble"), ("Complete", "BacklogLost")}
)


def told_by(action: Action, memory: Memory) -> tuple[RecordEvent, ...]:
    """The Events for a write that was done.

    Args:
        action: What was done.
        memory: Of which pods were told; those that this tells are added.
    """
    match action:
        case UpdateStatus():
            return tuple(_of_status(action))
        case PatchOrders():
            return tuple(_of_orders(action, memory))
        case DeleteCapture(capture=ref):
            said = "its time to live is over: the capture is deleted, and its files with it"
            return (_normal(ref, "Expired", said, "Delete"),)
        case _:
            return ()


def _of_status(action: UpdateStatus) -> Iterator[RecordEvent]:
    before = _conditions(action.old or {})
    for kind, condition in _conditions(action.status).items():
        old = before.get(kind, {})
        reason, message = str(condition["reason"]), str(condition["message"])
        is_new = old.get("reason") != reason
        if reason in MEANT_SO:
            if is_new:
                yield _normal(action.capture, reason, message, "Capture")
        elif kind in _WARNED_OF:
            was_told = old.get("status") == "False" and old.get("reason") not in MEANT_SO
            if condition["status"] == "False" and not was_told:
                yield _warning(action.capture, reason, message)
        elif kind == "Recording" and is_new and reason in SAID_OF_RECORDING:
            yield _normal(action.capture, SAID_OF_RECORDING[reason], message, "Capture")
        elif (kind, reason) in _WARNED_WHEN:
            if is_new:
                yield _warning(action.capture, reason, message)
        elif (kind, reason) == ("Complete", "AllShipped") and is_new and old:
            yield _normal(action.capture, "Complete", message, "Capture")


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By type; what somebody else wrote there is looked at with care."""
    found = status.get("conditions")
    return {
        str(condition.get("type")): condition
        for condition in (found if isinstance(found, list) else ())
        if isinstance(condition, dict)
    }


def _of_orders(action: PatchOrders, memory: Memory) -> Iterator[RecordEvent]:
    for entries, reason in ((action.begun, "CaptureStarted"), (action.over, "CaptureEnded")):
        for entry in entries:
            told = memory.pods_told.setdefault(entry.id, set())
            if action.pod.uid not in told and len(told) >= MAX_PODS_TOLD:
                continue
            told.add(action.pod.uid)
            yield _normal(action.pod, reason, _sentence(entry, reason), "Order")


def _sentence(entry: CaptureOrder, reason: str) -> str:
    if reason == "CaptureEnded":
        return f"capture {entry.name} is over in this pod"
    end = "" if entry.until >= FOREVER else f" until {timestamp(entry.until)}"
    return f"capture {entry.name} records packets of this pod{end}"


def _normal(ref: Ref, reason: str, message: str, action: str) -> RecordEvent:
    return RecordEvent(ref, type="Normal", reason=reason, message=message, action=action)


def _warning(ref: Ref, reason: str, message: str) -> RecordEvent:
    return RecordEvent(ref, type="Warning", reason=reason, message=message, action="Capture")
