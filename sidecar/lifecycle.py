"""What has to happen with each capture: from orders, what is known, and the clock.

Performing it is the worker's business. An end is remembered together with the
limits that it was reached under: a clock that jumps back does not reopen a
capture, a later `until` does.
"""

from collections.abc import Mapping
from typing import NamedTuple

from nightcap.contract.orders import CaptureOrder, Limit, Orders
from nightcap.contract.reports import Reason


class End(NamedTuple):
    """Why a capture ended, and under which limits."""

    reason: Reason
    until: int
    limit: Limit


class Known(NamedTuple):
    """One capture as the worker has it.

    Attributes:
        order: What it runs under; None when it is known from the spool only.
        running: Its interfaces are open, or are tried again and again.
        packets: Recorded, over all lives of the worker.
        bytes: Likewise.
        end: How it ended last.
        collector_until: The end as the collector knows it, said under this `until` of the orders;
            None when it said nothing.
        gone: The collector said that the capture was deleted.
    """

    order: CaptureOrder | None = None
    running: bool = False
    packets: int = 0
    bytes: int = 0
    end: End | None = None
    collector_until: float | None = None
    gone: bool = False


class _Action:
    """What is to be done; equal to another of its own kind alone, as a tuple would not be."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self)})"


class _WithOrder(_Action):
    __match_args__: tuple[str, ...] = ("order",)

    def __init__(self, order: CaptureOrder) -> None:
        self.order = order


class _WithId(_Action):
    __match_args__: tuple[str, ...] = ("id",)

    def __init__(self, capture_id: str) -> None:
        self.id = capture_id


class Begin(_WithOrder):
    """Open the interfaces of this capture."""


class Reopen(_WithOrder):
    """Close the interfaces and open them anew: what is captured has changed."""


class Adjust(_WithOrder):
    """Go on under these orders; the open interfaces stay as they are."""


class Finish(_WithOrder):
    """Close the interfaces, ship what is left."""

    __match_args__ = ("order", "end")

    def __init__(self, order: CaptureOrder, end: End) -> None:
        super().__init__(order)
        self.end = end


class Refuse(_WithId):
    """Stop and report that the orders of this capture cannot be read."""

    __match_args__ = ("id", "message")

    def __init__(self, capture_id: str, message: str) -> None:
        super().__init__(capture_id)
        self.message = message


class Discard(_WithId):
    """The collector has no such capture any more: stop, drop its segments, stay silent."""


class Forget(_WithId):
    """It is in the orders no more: stop and remove all that is left of it."""


Action = Begin | Reopen | Adjust | Finish | Refuse | Discard | Forget


def plan(
    orders: Orders, known: Mapping[str, Known], *, now: float, terminating: bool = False
) -> list[Action]:
    """What has to be done so that the captures are as ordered.

    Args:
        orders: The latest that could be read.
        known: By capture id, those in the spool included.
        now: The node's clock, seconds since the epoch.
        terminating: The pod is going.
    """
    refused = {capture_id: message for capture_id, message in orders.refused if capture_id}
    named = {order.id for order in orders.captures} | refused.keys()
    actions: list[Action] = [Forget(capture_id) for capture_id in known if capture_id not in named]
    actions += [Refuse(capture_id, message) for capture_id, message in refused.items()]
    for order in orders.captures:
        action = _next(order, known.get(order.id, Known()), now, terminating)
        if action is not None:
            actions.append(action)
    return actions


def _next(order: CaptureOrder, known: Known, now: float, terminating: bool) -> Action | None:
    if known.gone:
        return Discard(order.id) if known.running else None
    end = ending(order, known, now=now, terminating=terminating)
    if end is not None:
        settled = not known.running and known.end == end and known.order == order
        return None if settled else Finish(order, end)
    if not known.running or known.order is None:
        return Begin(order)
    if known.order == order:
        return None
    return Reopen(order) if _is_another_capture(known.order, order) else Adjust(order)


def _is_another_capture(old: CaptureOrder, new: CaptureOrder) -> bool:
    return (old.filter, old.snap, old.interfaces) != (new.filter, new.snap, new.interfaces)


def ending(
    order: CaptureOrder, known: Known, *, now: float, terminating: bool = False
) -> End | None:
    """Why this capture must not record (any more); None when it must."""
    end = known.end
    if end is not None and (end.until, end.limit) == (order.until, order.limit):
        return end
    reason = reached(order.limit, packets=known.packets, bytes_=known.bytes)
    if reason is None:
        until = order.until
        if known.collector_until is not None:
            # An end under another `until` than the order's is not kept when the collector
            # changes its mind.
            until = min(until, int(known.collector_until))
        if now >= until:
            return End(Reason.TIME, until, order.limit)
        if terminating:
            reason = Reason.TERMINATED
    return None if reason is None else End(reason, order.until, order.limit)


def reached(limit: Limit, *, packets: int, bytes_: int) -> Reason | None:
    """Which limit the counters have reached."""
    if limit.packets and packets >= limit.packets:
        return Reason.PACKETS
    if limit.bytes and bytes_ >= limit.bytes:
        return Reason.SIZE
    return None
