import pytest

from nightcap.contract.captures import WhenFull
from retrieval.retention import (
    SLACK_BYTES,
    Room,
    Stored,
    orphans,
    room,
    suspects,
    to_drop,
    to_give_up,
)
from retrieval.store.base import StoredSegment
from tests.unit.retrieval.builders import a_key

FINISH, RING = WhenFull.FINISH, WhenFull.DROP_OLDEST
MUCH = 1000 + SLACK_BYTES


@pytest.mark.parametrize(
    ("stored", "coming", "limit", "when_full", "expected"),
    [
        pytest.param(0, 10, 0, FINISH, Room.ENOUGH, id="no limit"),
        pytest.param(990, 10, 1000, FINISH, Room.ENOUGH, id="exactly the limit"),
        pytest.param(990, 11, 1000, FINISH, Room.REACHED, id="one byte more"),
        pytest.param(1001, 0, 1000, FINISH, Room.REACHED, id="a heartbeat above it"),
        pytest.param(MUCH - 1, 1, 1000, FINISH, Room.REACHED, id="all of the slack"),
        pytest.param(MUCH, 1, 1000, FINISH, Room.EXCEEDED, id="more than the slack"),
        pytest.param(MUCH + 9, 0, 1000, FINISH, Room.REACHED, id="a heartbeat far above it"),
        pytest.param(2000, 10, 1000, RING, Room.ENOUGH, id="a ring makes room instead"),
        pytest.param(MUCH, 1, 1000, RING, Room.EXCEEDED, id="a ring that cannot"),
    ],
)
def test_room(stored: int, coming: int, limit: int, when_full: WhenFull, expected: Room) -> None:
    assert room(stored, coming, limit, when_full) is expected


def a_segment(seq: int, size: int, modified_at: float, *, complete: bool = True) -> StoredSegment:
    return StoredSegment(a_key(seq), size, complete, modified_at)


def test_the_oldest_complete_segments_go_until_the_rest_fits() -> None:
    growing = a_segment(1, 500, 1, complete=False)
    old, older, young = a_segment(3, 300, 3), a_segment(2, 300, 2), a_segment(4, 300, 4)
    assert to_drop([growing, old, older, young], 1400) == []
    assert to_drop([growing, old, older, young], 1399) == [older]
    assert to_drop([growing, old, older, young], 1000) == [older, old]
    assert to_drop([growing], 10) == []


def test_captures_that_the_watch_knows_are_no_suspects() -> None:
    stored = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]
    assert suspects(stored, {"1", "3"}) == {"a": frozenset({"2"}), "b": frozenset({"4"})}


def test_files_go_only_when_the_api_server_answered_without_their_capture() -> None:
    assert orphans({"1", "2"}, {"2"}) == {"1"}
    assert orphans({"1", "2"}, set()) == {"1", "2"}
    assert orphans({"1", "2"}, None) == frozenset()


def a_stored(capture: str, size: int, modified_at: float, *, finished: bool = True) -> Stored:
    return Stored("storefront", capture, size, modified_at, finished)


def test_finished_captures_go_oldest_first_and_never_a_running_one() -> None:
    running = a_stored("a", 500, 1, finished=False)
    old, young = a_stored("c", 300, 3), a_stored("b", 300, 7)
    everything = [young, running, old]
    assert to_give_up(everything, 0) == []
    assert to_give_up(everything, 1100) == []
    assert to_give_up(everything, 1099) == [old]
    assert to_give_up(everything, 799) == [old, young]
    assert to_give_up(everything, 10) == [old, young]
