from collections.abc import Callable
from random import Random

import pytest

from sidecar.loop import DRAWS, WATCH_SECONDS, LoopDetector, draw, matches
from tests.unit.sidecar.traffic import Pod, Traffic, both, bursts, poisson, seeded, steady

MINUTES_10 = 600.0
FOUND_SECONDS = 240.0
"""Every loop of these simulations is found by then (docs/decisions/0006)."""


def some_bursts(random: Random, rate: float, period: float = 0.0) -> Traffic:
    return bursts(
        rate * (period := period or 10 ** random.uniform(-0.7, 1.3)),
        period=period,
        share=random.choice([0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]),
        phase=random.random(),
    )


def in_step(random: Random, rate: float) -> Traffic:
    """Bursts whose period is that of windows, of pairs of them, of whole trials."""
    return some_bursts(random, rate, random.choice([0.25, 0.8, 1.05, 2.1, 3.15, 4.2, 6.3]))


INNOCENT: dict[str, Callable[[Random, float], Traffic]] = {
    "steady": lambda _, rate: steady(rate),
    "bursts": some_bursts,
    "bursts in step with trials": in_step,
    "two kinds of bursts": lambda random, rate: both(
        some_bursts(random, rate), some_bursts(random, rate)
    ),
    "bursts at random": lambda random, rate: poisson(
        random, seconds=MINUTES_10, gap=10 ** random.uniform(-1.5, 1), size=rate
    ),
}


@pytest.mark.parametrize("kind", INNOCENT)
def test_no_application_is_taken_for_a_loop(kind: str) -> None:
    """400 of each kind, some on a machine that is late; most of them are tried several times."""
    tried = 0
    for seed in range(400):
        random = seeded(seed)
        traffic = INNOCENT[kind](random, 10 ** random.uniform(3.6, 7))
        pod = Pod(traffic, random, late=random.choice([0, 0.02, 0.2]))
        assert pod.run(MINUTES_10).looping == set(), seed
        tried += bool(pod.trials)
    assert tried > 300


@pytest.mark.parametrize("kind", ["alone", "steady", "bursts", "bursts at random"])
def test_every_loop_is_found(kind: str) -> None:
    """Beside an application that takes a tenth of what the way to the collector carries at most."""
    for seed in range(100):
        random = seeded(seed)
        latency, bandwidth = random.choice([0.005, 0.05, 0.2]), 10 ** random.uniform(6, 8.5)
        carried = 2**22 / (latency + 2**22 / bandwidth)
        peak = min(10 ** random.uniform(4, 7), carried / 10)
        share, period, gap = random.uniform(0.1, 0.9), 10 ** random.uniform(-0.7, 1.3), 0.3
        traffic = {
            "alone": steady(3500),
            "steady": steady(peak),
            "bursts": bursts(peak * period * share, period=period, share=share, phase=0.5),
            "bursts at random": poisson(random, seconds=MINUTES_10, gap=gap, size=peak * gap / 4),
        }[kind]
        pod = Pod(
            traffic,
            random,
            gain=random.choice([1.0, 1.03, 1.05, 1.1, 2.0]),
            pace=random.choice([1.0, 2.0, 10.0]),
            bandwidth=bandwidth,
            latency=latency,
            late=random.choice([0, 0.02, 0.2]),
        )
        assert pod.run(MINUTES_10).looping == {"a"}, seed
        assert pod.found_at <= FOUND_SECONDS, seed


def test_whatever_was_recorded_matches_one_draw_at_most() -> None:
    """So no traffic, were it made for it, matches oftener than one trial in twenty."""
    random = seeded(1)
    matched = 0
    for _ in range(5000):
        rates = [random.choice([0, 1, 1, 10, 100, 10**6]) * random.random() for _ in range(6)]
        found = [
            drawn
            for drawn in DRAWS
            if matches(
                [rate for number, rate in enumerate(rates) if number in drawn],
                [rate for number, rate in enumerate(rates) if number not in drawn],
            )
        ]
        assert len(found) <= 1
        matched += len(found)
    assert matched > 500


def test_lots_fall_evenly() -> None:
    counts = [0] * 20
    for _ in range(4000):
        counts[draw(20)] += 1
    assert min(counts) > 100
    assert max(counts) < 300


def test_only_the_capture_that_records_its_upload_is_blamed() -> None:
    detector = Pod(steady(1000), seeded(1), gain=1.05).run(FOUND_SECONDS)
    assert detector.looping == {"a"}
    assert not detector.paused


def test_a_busy_application_is_seldom_disturbed() -> None:
    pod = Pod(steady(500_000), seeded(1))
    pod.run(3600)
    assert 1 <= len(pod.trials) <= 30
    assert pod.held_seconds <= 20


def test_a_quiet_pod_is_never_paused() -> None:
    pod = Pod(steady(1000), seeded(1))
    pod.run(MINUTES_10)
    assert pod.trials == []


def test_a_capture_that_begins_anew_is_innocent() -> None:
    detector = Pod(steady(1000), seeded(1), gain=1.05).run(FOUND_SECONDS)
    detector.forget("a")
    assert detector.looping == set()


def test_no_window_begins_while_a_request_is_on_its_way() -> None:
    """What it carries would be recorded in a window that is to be without."""
    detector = LoopDetector()
    now = 0.0
    while not detector.paused:
        detector.observe(now, int(10**5 * now), {"a": int(10**5 * now)}, sending=False)
        now += 1
        assert now < 3 * WATCH_SECONDS
    for _ in range(100):
        now = detector.next_at(now)
        detector.observe(now, 10**7, {"a": 10**7}, sending=True)
        assert detector.paused


def test_a_capture_that_ends_during_its_trial_ends_the_trial() -> None:
    detector = LoopDetector(draw=lambda _: 0)
    now = 0.0
    while now < 3 * WATCH_SECONDS and not detector.paused:
        detector.observe(now, int(10**5 * now), {"a": int(10**5 * now)}, sending=False)
        now += 1
    assert detector.paused
    for _ in range(4):
        now = detector.next_at(now)
        detector.observe(now, 10**7, {}, sending=False)
    assert not detector.paused
    detector.observe(now + 1, 10**7, {}, sending=False)
    assert not detector.paused
