from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.orders import Rotation
from sidecar.rotation import LEAST_SEGMENT_BYTES, Stored, is_full, segment_limit, to_drop

A, B = ("a", "eth0"), ("b", "eth0")


def stored(seq: int, stream: tuple[str, str] = A, size: int = 10, **facts: object) -> Stored:
    return Stored(stream=stream, seq=seq, size=size, **{"max_files": 100, **facts})  # type: ignore[arg-type]


def test_a_segment_is_full_by_size_or_by_age() -> None:
    assert not is_full(written=99, limit=100, age_seconds=59.9, max_seconds=60)
    assert is_full(written=100, limit=100, age_seconds=0, max_seconds=60)
    assert is_full(written=24, limit=100, age_seconds=60, max_seconds=60)


def test_a_small_spool_makes_small_segments() -> None:
    rotation = Rotation(max_bytes=10 * 2**20)
    assert segment_limit(rotation, spool_bytes=2**30, streams=2) == 10 * 2**20
    assert segment_limit(rotation, spool_bytes=16 * 2**20, streams=2) == 2 * 2**20
    assert segment_limit(rotation, spool_bytes=1, streams=64) == LEAST_SEGMENT_BYTES


def test_the_oldest_beyond_the_count_go_stream_by_stream() -> None:
    segments = [stored(seq, stream, max_files=2) for seq in range(4) for stream in (A, B)]
    gone = to_drop(segments, 10**9)
    assert {(each.stream, each.seq) for each in gone} == {(A, 0), (A, 1), (B, 0), (B, 1)}


def test_the_newest_segments_order_says_how_many_stay() -> None:
    segments = [stored(0, max_files=10**6), stored(1, max_files=10**6), stored(2, max_files=1)]
    assert [each.seq for each in to_drop(segments, 10**9)] == [0, 1]


def test_shipped_ones_go_first_then_the_oldest() -> None:
    segments = [stored(0), stored(1, shipped=True), stored(2), stored(3)]
    assert [each.seq for each in to_drop(segments, 20)] == [1, 0]


def test_one_that_is_being_uploaded_goes_last_and_one_that_grows_never() -> None:
    segments = [stored(0, busy=True), stored(1), stored(2, growing=True)]
    assert [each.seq for each in to_drop(segments, 15)] == [1, 0]
    assert [each.seq for each in to_drop(segments, 0)] == [1, 0]


segments_of_streams = st.lists(
    st.builds(
        Stored,
        stream=st.sampled_from([A, B]),
        seq=st.just(0),
        size=st.integers(24, 1000),
        max_files=st.integers(1, 5),
        growing=st.just(False),
        shipped=st.booleans(),
        busy=st.booleans(),
    ),
    max_size=20,
)


@given(segments_of_streams, st.integers(0, 5000))
def test_after_dropping_all_rules_hold_and_nothing_goes_without_need(
    found: list[Stored], limit: int
) -> None:
    segments = [
        Stored(each.stream, seq, each.size, each.max_files, each.growing, each.shipped, each.busy)
        for seq, each in enumerate(found)
    ]
    gone = to_drop(segments, limit)
    kept = [each for each in segments if each not in gone]
    assert len(set(map(id, gone))) == len(gone)
    assert sum(each.size for each in kept) <= limit
    for stream in (A, B):
        members = [each for each in segments if each.stream == stream]
        left = [each for each in kept if each.stream == stream]
        assert not members or len(left) <= members[-1].max_files
    if gone:
        fewer = [each for each in segments if each not in gone[:-1]]
        too_many = any(
            len([each for each in fewer if each.stream == stream])
            > [each for each in segments if each.stream == stream][-1].max_files
            for stream in {each.stream for each in fewer}
        )
        assert too_many or sum(each.size for each in fewer) > limit
