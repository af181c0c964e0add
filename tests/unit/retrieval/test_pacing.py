"""Load is shed before anything breaks, and taken back when it has gone."""

import pytest

from retrieval.collector.pacing import MOST_SECONDS, Pace, next_pace


@pytest.mark.parametrize(
    ("pace", "busy", "expected"),
    [
        pytest.param(1, 0.1, 1, id="calm, and no faster than the store allows"),
        pytest.param(4, 0.55, 4, id="well used"),
        pytest.param(4, 0.9, 6, id="busy"),
        pytest.param(25, 1.9, MOST_SECONDS, id="as seldom as a heartbeat and no seldomer"),
        pytest.param(10, 0.2, 8, id="calm again, step by step"),
    ],
)
def test_the_pace_follows_the_load(pace: float, busy: float, expected: float) -> None:
    assert next_pace(pace, busy, least_seconds=1) == expected


def test_a_slow_store_is_never_asked_faster_than_it_says() -> None:
    assert next_pace(10, 0.1, least_seconds=10) == 10
    assert next_pace(40, 0.9, least_seconds=40) == 40


def test_a_crowd_settles_where_the_collector_is_well_used() -> None:
    """Five thousand sidecars whose appends cost a millisecond and a half each."""
    pace, cpu = Pace(1.0), 0.0
    for second in range(120):
        cpu += min(1.0, 5000 * 0.0015 / pace.seconds)
        pace.look(second, cpu)
    assert 0.4 <= 5000 * 0.0015 / pace.seconds <= 0.7


def test_between_two_looks_the_pace_stays() -> None:
    pace = Pace(1.0)
    assert pace.look(100.0, 0.0) == 1
    assert pace.look(101.0, 1.0) == 1
    assert pace.look(102.0, 2.0) == 1.5
