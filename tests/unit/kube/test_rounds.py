import logging
import threading

from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.rounds import Rounds


class Looks:
    """Fails in the first looks, in one way each, and says when a later one was reached."""

    def __init__(self) -> None:
        self.errors = [ClusterUnavailable(0, "Away", "nobody there"), ValueError("odd")]
        self.survived = threading.Event()

    def __call__(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.survived.set()


def test_rounds_go_on_after_a_look_that_failed(caplog):
    looks = Looks()
    rounds = Rounds("guard", looks, 0.001)
    with caplog.at_level(logging.WARNING):
        rounds.start()
        assert looks.survived.wait(10)
        rounds.stop()
    assert [(record.levelname, record.round) for record in caplog.records] == [
        ("WARNING", "guard"),
        ("ERROR", "guard"),
    ]


def test_a_stop_waits_for_the_look_that_is_under_way():
    entered, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def look() -> None:
        entered.set()
        may_end.wait(10)
        ended.set()

    rounds = Rounds("janitor", look, 0.001)
    rounds.start()
    assert entered.wait(10)
    assert not rounds.is_stopping
    may_end.set()
    rounds.stop(timeout=None)
    assert ended.is_set()
    assert rounds.is_stopping


def test_rounds_that_never_began_can_be_stopped():
    looks = Looks()
    Rounds("canary", looks, 0.001).stop()
    assert len(looks.errors) == 2
