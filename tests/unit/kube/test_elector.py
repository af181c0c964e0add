from datetime import UTC, datetime

import pytest

from nightcap.kube.elector import ElectionSettings, Lease, LeaseSpec, Seen, may_take, next_spec

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def seen(holder: str | None, at: float, seconds: int | None = 10) -> Seen:
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=seconds)
    return Seen(Lease(spec=spec), at)


@pytest.mark.parametrize(
    ("holder", "age_seconds", "allowed"),
    [
        pytest.param("us", 0, True, id="ours"),
        pytest.param("us", 1000, True, id="ours, long ago"),
        pytest.param("", 0, True, id="given back"),
        pytest.param(None, 0, True, id="never held"),
        pytest.param("other", 0, False, id="another's, just renewed"),
        pytest.param("other", 9.9, False, id="another's, not over yet"),
        pytest.param("other", 10, True, id="another's, over"),
    ],
)
def test_a_lease_may_be_taken_only_when_its_holder_is_not_believed_any_more(
    holder: str | None, age_seconds: float, allowed: bool
) -> None:
    assert may_take(seen(holder, 100.0), "us", 100.0 + age_seconds, 60) is allowed


def test_what_the_lease_says_of_its_duration_counts_and_ours_where_it_says_nothing() -> None:
    assert may_take(seen("other", 0.0, 3), "us", 3.0, 60)
    assert not may_take(seen("other", 0.0, None), "us", 59.0, 60)
    assert may_take(seen("other", 0.0, None), "us", 60.0, 60)


def test_renewing_keeps_the_time_of_acquiring_and_counts_no_change_of_hands() -> None:
    first = next_spec(None, "us", NOW, 10)
    assert first.lease_transitions == 0
    assert first.renew_time == first.acquire_time == "2026-11-22T02:00:00.000000Z"
    later = next_spec(Lease(spec=first), "us", NOW.replace(second=5), 10)
    assert later.acquire_time == first.acquire_time
    assert later.renew_time == "2026-11-22T02:00:05.000000Z"
    assert later.lease_transitions == 0


def test_taking_over_counts_a_change_of_hands() -> None:
    theirs = next_spec(None, "them", NOW, 10)
    ours = next_spec(Lease(spec=theirs), "us", NOW.replace(minute=1), 10)
    assert (ours.holder_identity, ours.lease_transitions) == ("us", 1)
    assert ours.acquire_time == ours.renew_time


@pytest.mark.parametrize(
    "times", [(10, 10, 1), (5, 10, 1), (10, 6, 6), (10, 6, 0)], ids=lambda t: str(t)
)
def test_times_that_would_allow_two_leaders_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must grow in this order"):
        ElectionSettings(*times)
