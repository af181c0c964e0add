import pytest

from nightcap.contract.orders import CaptureOrder, Limit, Orders, Rotation
from nightcap.contract.reports import Reason
from sidecar.lifecycle import (
    Adjust,
    Begin,
    Discard,
    End,
    Finish,
    Forget,
    Known,
    Refuse,
    Reopen,
    plan,
)

NOW = 1_700_000_000.0
ORDER = CaptureOrder(
    id="a1", namespace="n", name="c", until=int(NOW) + 60, limit=Limit(bytes=1000, packets=10)
)
RUNNING = Known(order=ORDER, running=True)


def orders(*captures: CaptureOrder) -> Orders:
    return Orders(captures=captures)


def test_an_unknown_capture_begins() -> None:
    assert plan(orders(ORDER), {}, now=NOW) == [Begin(ORDER)]


def test_one_that_runs_as_ordered_is_left_alone() -> None:
    assert plan(orders(ORDER), {"a1": RUNNING}, now=NOW) == []


@pytest.mark.parametrize(
    "change",
    [{"filter": "tcp"}, {"snap": 60}, {"interfaces": ("eth1",)}],
    ids=["filter", "snap", "interfaces"],
)
def test_another_packet_selection_reopens(change: dict[str, object]) -> None:
    changed = ORDER._replace(**change)  # type: ignore[arg-type]
    assert plan(orders(changed), {"a1": RUNNING}, now=NOW) == [Reopen(changed)]


@pytest.mark.parametrize(
    "change",
    [{"until": int(NOW) + 90}, {"limit": Limit()}, {"rotation": Rotation(max_files=2)}],
    ids=["until", "limit", "rotation"],
)
def test_other_limits_leave_the_interfaces_open(change: dict[str, object]) -> None:
    changed = ORDER._replace(**change)  # type: ignore[arg-type]
    assert plan(orders(changed), {"a1": RUNNING}, now=NOW) == [Adjust(changed)]


@pytest.mark.parametrize(
    ("facts", "now", "terminating", "reason"),
    [
        ({}, NOW + 60, False, Reason.TIME),
        ({"packets": 10}, NOW, False, Reason.PACKETS),
        ({"bytes": 1000}, NOW, False, Reason.SIZE),
        ({"packets": 10}, NOW + 60, True, Reason.PACKETS),
        ({}, NOW, True, Reason.TERMINATED),
    ],
)
def test_limits_end_a_capture(
    facts: dict[str, int], now: float, terminating: bool, reason: Reason
) -> None:
    known = {"a1": Known(order=ORDER, running=True, **facts)}  # type: ignore[arg-type]
    [action] = plan(orders(ORDER), known, now=now, terminating=terminating)
    assert action == Finish(ORDER, End(reason, ORDER.until, ORDER.limit))


def test_an_end_is_performed_once() -> None:
    end = End(Reason.TIME, ORDER.until, ORDER.limit)
    settled = {"a1": Known(order=ORDER, end=end)}
    assert plan(orders(ORDER), settled, now=NOW + 60) == []


def test_a_clock_that_jumps_back_does_not_reopen() -> None:
    end = End(Reason.TIME, ORDER.until, ORDER.limit)
    assert plan(orders(ORDER), {"a1": Known(order=ORDER, end=end)}, now=NOW) == []


def test_after_a_restart_the_end_is_said_again_and_nothing_is_opened() -> None:
    end = End(Reason.TIME, ORDER.until, ORDER.limit)
    assert plan(orders(ORDER), {"a1": Known(end=end)}, now=NOW) == [Finish(ORDER, end)]


def test_a_later_until_reopens() -> None:
    end = End(Reason.TIME, ORDER.until, ORDER.limit)
    later = ORDER._replace(until=ORDER.until + 600)
    known = {"a1": Known(order=ORDER, end=end)}
    assert plan(orders(later), known, now=NOW + 60) == [Begin(later)]


def test_a_later_until_does_not_reopen_what_is_full() -> None:
    end = End(Reason.SIZE, ORDER.until, ORDER.limit)
    later = ORDER._replace(until=ORDER.until + 600)
    known = {"a1": Known(order=ORDER, end=end, bytes=1000)}
    expected = Finish(later, End(Reason.SIZE, later.until, later.limit))
    assert plan(orders(later), known, now=NOW + 60) == [expected]


def test_the_collectors_earlier_end_holds_and_may_be_taken_back() -> None:
    told = Known(order=ORDER, running=True, collector_until=NOW)
    end = End(Reason.TIME, int(NOW), ORDER.limit)
    assert plan(orders(ORDER), {"a1": told}, now=NOW) == [Finish(ORDER, end)]
    ended = told._replace(running=False, end=end)
    assert plan(orders(ORDER), {"a1": ended}, now=NOW) == []
    taken_back = ended._replace(collector_until=NOW + 60)
    assert plan(orders(ORDER), {"a1": taken_back}, now=NOW) == [Begin(ORDER)]


def test_the_collectors_later_end_changes_nothing() -> None:
    told = Known(order=ORDER, running=True, collector_until=NOW + 600)
    [action] = plan(orders(ORDER), {"a1": told}, now=NOW + 60)
    assert isinstance(action, Finish)


def test_what_is_in_the_orders_no_more_is_forgotten() -> None:
    assert plan(orders(), {"a1": RUNNING, "b2": Known()}, now=NOW) == [Forget("a1"), Forget("b2")]


def test_what_the_collector_disowned_is_discarded_and_never_begun_again() -> None:
    gone = RUNNING._replace(gone=True)
    assert plan(orders(ORDER), {"a1": gone}, now=NOW) == [Discard("a1")]
    assert plan(orders(ORDER), {"a1": gone._replace(running=False)}, now=NOW) == []


def test_a_refused_entry_stops_its_own_capture_and_is_not_forgotten() -> None:
    other = ORDER._replace(id="b2")
    refused = Orders(captures=(other,), refused=(("a1", "snap: wrong"), ("", "no id")))
    known = {"a1": RUNNING, "b2": Known(order=other, running=True)}
    assert plan(refused, known, now=NOW) == [Refuse("a1", "snap: wrong")]
