"""Limits of one asker; the others do not notice."""

import pytest

from retrieval.limits import Rate, Seats, Strangers, TooMuch


def test_a_burst_then_so_many_a_second_for_each() -> None:
    rate = Rate(2, 5)
    for _ in range(5):
        rate.take("a", 0.0)
    with pytest.raises(TooMuch) as refused:
        rate.take("a", 0.4)
    assert refused.value.retry_after_seconds >= 1
    rate.take("b", 0.4)
    rate.take("a", 0.5)
    with pytest.raises(TooMuch):
        rate.take("a", 0.6)
    for _ in range(5):
        rate.take("a", 100.0)


def test_seats_are_free_again() -> None:
    seats = Seats(2)
    seats.take("a")
    with seats.taken("a"):
        with pytest.raises(TooMuch):
            seats.take("a")
        seats.take("b")
    seats.take("a")


def test_guessing_tokens_ends_and_holds_up_nobody_who_is_known() -> None:
    strangers = Strangers(per_second=1, burst=3)
    strangers.note("there", "good", 0.0, is_good=True)
    for number in range(3):
        strangers.check("there", f"guess {number}", 0.0)
        strangers.note("there", f"guess {number}", 0.0, is_good=False)
    with pytest.raises(TooMuch):
        strangers.check("there", "guess 4", 0.0)
    strangers.check("there", "good", 0.0)
    strangers.check("elsewhere", "guess", 0.0)
    strangers.note("there", "good", 0.1, is_good=False)  # revoked
    with pytest.raises(TooMuch):
        strangers.check("there", "good", 0.1)
    strangers.check("there", "guess 5", 2.0)
