from sidecar.loop import LoopDetector


def run(
    detector: LoopDetector, seconds: float, *, own: float, returned: float, start: float = 0.0
) -> list[float]:
    """A pod that records `own` bytes/s of its application and `returned` times what is sent.

    Returns:
        When each pause began.
    """
    recorded, uploaded, backlog = 0.0, 0.0, 0.0
    pauses = []
    for step in range(int(seconds * 8)):
        sent = 0.0 if detector.paused else backlog
        fresh = own / 8 + sent * returned
        recorded += fresh
        uploaded += sent
        backlog = min(backlog - sent + fresh, 10**6)
        was_paused = detector.paused
        now = start + step / 8
        detector.observe(now, int(uploaded), {"a": int(recorded), "narrow": 100})
        if detector.paused and not was_paused:
            pauses.append(now)
    return pauses


def test_an_upload_that_comes_back_is_seen_and_only_its_capture_is_blamed() -> None:
    detector = LoopDetector()
    run(detector, 60, own=1000, returned=1.05)
    assert detector.looping == {"a"}
    assert not detector.paused


def test_a_busy_application_is_not_blamed_and_seldom_disturbed() -> None:
    detector = LoopDetector()
    pauses = run(detector, 3600, own=500_000, returned=0)
    assert detector.looping == set()
    assert 1 <= len(pauses) <= 10


def test_a_quiet_pod_is_never_paused() -> None:
    detector = LoopDetector()
    assert run(detector, 600, own=1000, returned=0) == []


def test_one_quiet_moment_during_a_pause_is_not_enough() -> None:
    detector = LoopDetector()
    recorded = uploaded = 0
    for step in range(1600):
        # The application falls silent during the first pause only, by chance.
        quiet = detector.paused and step < 120
        recorded += 0 if quiet else 60_000
        uploaded += 0 if detector.paused else 60_000
        detector.observe(step / 8, uploaded, {"a": recorded})
    assert detector.looping == set()


def test_a_capture_that_begins_anew_is_innocent() -> None:
    detector = LoopDetector()
    run(detector, 60, own=1000, returned=1.05)
    detector.forget("a")
    assert detector.looping == set()
