from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.reports import MAX_GAPS, Gap, Lost
from sidecar.losses import lose, regain


def test_neighbours_are_one_gap_in_whatever_order_they_go() -> None:
    lost = Lost()
    for seq in (4, 5, 3):
        lost = lose(lost, "eth0", seq, start=0, end=100)
    assert lost == Lost(3, 300, (Gap("eth0", 3, 5, 0, 300),))


def test_one_that_had_begun_to_be_shipped_is_the_first_of_its_gap() -> None:
    lost = lose(Lost(), "eth0", 4, start=0, end=100)
    lost = lose(lost, "eth0", 5, start=60, end=100)
    lost = lose(lost, "eth0", 6, start=0, end=100)
    assert lost.gaps == (Gap("eth0", 4, 4, 0, 100), Gap("eth0", 5, 6, 60, 140))


def test_interfaces_have_gaps_of_their_own() -> None:
    lost = lose(lose(Lost(), "eth0", 1, start=0, end=10), "net1", 2, start=0, end=20)
    lost = lose(lost, "eth0", 2, start=0, end=30)
    assert set(lost.gaps) == {Gap("eth0", 1, 2, 0, 40), Gap("net1", 2, 2, 0, 20)}


def test_what_the_collector_lost_of_a_dropped_one_is_added() -> None:
    lost = lose(Lost(), "eth0", 4, start=60, end=100)
    assert lose(lost, "eth0", 4, start=20, end=60) == Lost(1, 80, (Gap("eth0", 4, 4, 20, 80),))


def test_what_had_arrived_after_all_is_taken_back() -> None:
    lost = lose(Lost(), "eth0", 4, start=0, end=100)
    assert regain(lost, "eth0", 4, size=70, offset=70).gaps == (Gap("eth0", 4, 4, 70, 30),)
    assert regain(lost, "eth0", 4, size=100, offset=100) == Lost()


def test_the_newest_gaps_are_kept_and_the_totals_hold_all() -> None:
    lost = Lost()
    for seq in range(0, 200, 2):
        lost = lose(lost, "eth0", seq, start=0, end=10)
    assert (lost.segments, lost.bytes, len(lost.gaps)) == (100, 1000, MAX_GAPS)
    assert lost.gaps[-1] == Gap("eth0", 198, 198, 0, 10)
    # One that is named no more still counts.
    assert regain(lost, "eth0", 0, size=10, offset=10).bytes == 990


@given(st.permutations(range(10)), st.lists(st.integers(0, 100), min_size=10, max_size=10))
def test_gaps_name_every_lost_byte_once(order: list[int], shipped: list[int]) -> None:
    lost = Lost()
    for seq in order:
        if shipped[seq] < 100:
            lost = lose(lost, "eth0", seq, start=shipped[seq], end=100)
    missing = {seq for seq in order if shipped[seq] < 100}
    named = [seq for gap in lost.gaps for seq in range(gap.first, gap.last + 1)]
    assert sorted(named) == sorted(missing)
    assert lost.segments == len(missing)
    assert lost.bytes == sum(gap.bytes for gap in lost.gaps) == sum(100 - n for n in shipped)
    for gap in lost.gaps:
        assert gap.offset == shipped[gap.first]
        assert all(shipped[seq] == 0 for seq in range(gap.first + 1, gap.last + 1))
