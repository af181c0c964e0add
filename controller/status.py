"""The status of a capture: what is true of it now, in words that people can act on.

Bounded whatever the number of pods: sums, nodes and names of files as far as there is room
(`controller.files`), messages that name a few pods and count the rest.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from controller.actions import UpdateStatus, capture_ref
from controller.conditions import conditions_of
from controller.files import files_of, nodes_of
from controller.phase import phase_of
from controller.tally import PodFacts, Tally, tally_of
from controller.view import NEVER, Judged, NamespaceView
from controller.wording import timestamp
from nightcap.contract.captures import PacketCapture

WRITE_EVERY_SECONDS: Final = 5.0


def plan_status(
    judged: Judged,
    pods: Collection[PodFacts],
    view: NamespaceView,
    faults: Mapping[str, tuple[str, ...]],
    now: float,
    carried: bool = False,
) -> tuple[UpdateStatus | None, float]:
    """The write that a capture's status needs, if it is due.

    Args:
        judged: The capture.
        pods: The pods that it selects, those that are over left out.
        view: Its namespace.
        faults: Name of an annotation capture -> what is wrong with the annotations.
        now: Seconds since the epoch.
        carried: Whether some living pod's orders hold it.

    Returns:
        (the write or None, when to look again).
    """
    if judged.is_leaving or not view.retrieval.asked:
        return None, NEVER
    capture = judged.capture
    tally = tally_of(judged, pods, view, now)
    status = desired_status(judged, tally, view, _faults_of(capture, faults), now, carried)
    if status == capture.status:
        return None, tally.wake_at
    written_at = view.memory.status_written_at.get(judged.uid)
    # abs: a clock that was set back must not hold a status for the hours in between.
    if written_at is not None and abs(now - written_at) < WRITE_EVERY_SECONDS:
        return None, min(tally.wake_at, written_at + WRITE_EVERY_SECONDS)
    return UpdateStatus(capture_ref(capture), status, capture.status), tally.wake_at


def _faults_of(capture: PacketCapture, faults: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return () if capture.source is None else faults.get(capture.metadata.name, ())


def desired_status(
    judged: Judged,
    tally: Tally,
    view: NamespaceView,
    faults: tuple[str, ...],
    now: float,
    carried: bool,
) -> dict[str, Any]:
    """The whole of `status`."""
    metadata = judged.capture.metadata
    running = judged.is_running(now)
    reports = tuple(view.reports.get(judged.uid, {}).values())
    # A collector that is away takes its numbers along; the last known ones are nearer to
    # the truth, as they only grow.
    known = {} if view.retrieval.is_reachable else judged.capture.status or {}
    directory = f"{metadata.namespace}/{metadata.name}"
    files = files_of(directory, nodes_of(judged, tally, reports, carried, now), reports)
    return {
        "phase": str(phase_of(judged, tally, faults, now)),
        "observedGeneration": metadata.generation,
        **_window(judged),
        "pods": {
            "matching": len(tally.matching),
            "capturing": len(tally.open) if running else 0,
            "withoutSidecar": len(tally.bare),
            "notReporting": len(tally.silent),
            "failed": len(tally.failed),
        },
        "packets": _at_least(known, "packets", (item.report.packets for item in reports)),
        "dropped": _at_least(known, "dropped", (item.report.dropped for item in reports)),
        "size": _at_least(known, "size", (item.report.bytes for item in reports)),
        "fileCount": _at_least(known, "fileCount", (item.file_count for item in reports)),
        "files": known.get("files") or files if known else files,
        "conditions": conditions_of(judged, tally, view, faults, now, carried),
    }


def _window(judged: Judged) -> dict[str, str]:
    settings = judged.settings
    if settings is None:
        return {}
    times = {"startTime": timestamp(settings.starts_at)}
    if settings.has_end:
        times["endTime"] = timestamp(settings.ends_at)
    return times


def _at_least(known: Mapping[str, Any], key: str, counts: Iterable[int]) -> int:
    before = known.get(key)
    return max(sum(counts), before if isinstance(before, int) else 0)
