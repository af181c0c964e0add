"""The walk-through of `make demo`, as it is."""

from demo.narrator import Narrator
from demo.stage import Stage
from demo.walkthrough import WalkThrough


def test_every_promise_of_the_walk_through_is_kept(stage: Stage) -> None:
    tell = Narrator()
    walk = WalkThrough(stage, tell)
    walk.run()
    walk.close()
    assert tell.broken == []
