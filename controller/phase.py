"""Where a capture stands, in one word."""

from enum import StrEnum

from controller.tally import Tally
from controller.view import Judged
from nightcap.contract.reports import State


class Phase(StrEnum):
    """Where a capture stands."""

    SCHEDULED = "Scheduled"
    WAITING = "WaitingForTraffic"
    CAPTURING = "Capturing"
    FINISHED = "Finished"
    ERROR = "Error"


def phase_of(judged: Judged, tally: Tally, faults: tuple[str, ...], now: float) -> Phase:
    """The word for a capture at this moment."""
    settings = judged.settings
    if settings is None:
        return Phase.ERROR
    if settings.suspended and faults:
        return Phase.ERROR
    if settings.suspended or settings.has_ended(now):
        return Phase.FINISHED
    if judged.beyond:
        return Phase.ERROR
    if not settings.has_started(now):
        return Phase.SCHEDULED
    if any(item.report.state is State.CAPTURING for item in tally.open):
        return Phase.CAPTURING
    if tally.open or not tally.covered:
        return Phase.WAITING
    if len(tally.finished) + len(tally.failed) < len(tally.covered):
        return Phase.WAITING
    return Phase.FINISHED if tally.finished else Phase.ERROR
