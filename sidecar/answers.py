"""What a collector's answer says in its status and headers; pure."""

from typing import Final

from nightcap.contract import uploads
from sidecar import shipping
from sidecar.connection import Answer
from sidecar.shipping import Received

ACCEPTED: Final = frozenset({200, 201, 204})


def received(answer: Answer, *, otherwise: int) -> Received:
    """What the collector holds of a segment; `otherwise` is its length when it does not say."""
    offset, durable = _number(answer, uploads.OFFSET), _number(answer, uploads.DURABLE)
    return Received(
        offset=otherwise if offset is None else int(offset),
        durable=0 if durable is None else int(durable),
        complete=answer.headers.get(uploads.COMPLETE.lower()) == "?1",
    )


def pace(answer: Answer) -> float:
    """Seconds until the next upload of a segment."""
    said = _number(answer, uploads.PACE)
    if said is None:
        return shipping.DEFAULT_PACE_SECONDS
    return min(said, shipping.MAX_PACE_SECONDS)


def pause(answer: Answer) -> float:
    """Seconds that a refusal asks to be left alone for; 0 when it does not say."""
    return min(_number(answer, uploads.PACE) or 0.0, shipping.MAX_PACE_SECONDS)


def until(answer: Answer) -> float | None:
    """The capture's end as the collector knows it, seconds since the epoch."""
    return _number(answer, uploads.UNTIL)


def _number(answer: Answer, name: str) -> float | None:
    """A header's number, 0 or more; None when it is not there or is none."""
    try:
        value = float(answer.headers.get(name.lower(), ""))
    except ValueError:
        return None
    return value if 0 <= value < 2**63 else None
