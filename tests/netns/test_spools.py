"""Segments rotate, and room runs out: what goes, what stays, what is counted."""

import time
from contextlib import closing

import pytest

from nightcap.contract.orders import Rotation
from tests.disks import small_disk
from tests.netns.pods import ID, Pod, an_order, wait_for
from tests.netns.written import ledger, numbers, segments, settle

pytestmark = pytest.mark.netns


def test_rotation_by_size_loses_and_doubles_nothing(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_bytes=20_000, max_files=1000)))
    pod.start()
    pod.wait_open()
    pod.link.send(5000)
    settle()
    assert pod.terminate() == 0
    files = segments(pod)
    assert len(files) > 10
    assert [file.name for file in files] == [f"{seq:08d}.pcap" for seq in range(len(files))]
    assert numbers(*files) == list(range(5000))
    assert all(file.stat().st_size < 25_000 for file in files)


def test_rotation_by_age_leaves_no_empty_segments(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_seconds=0.3)))
    pod.start()
    pod.wait_open()
    pod.link.send(3)
    time.sleep(1.2)
    pod.link.send(3, first=3)
    settle()
    assert pod.terminate() == 0
    assert [numbers(file) for file in segments(pod)] == [[0, 1, 2], [3, 4, 5]]


def test_the_oldest_segment_goes_and_is_counted_as_lost(pod: Pod) -> None:
    pod.order(an_order(rotation=Rotation(max_bytes=10_000, max_files=3)))
    pod.start()
    pod.wait_open()
    pod.link.send(1000)
    settle()
    assert pod.terminate() == 0
    files = segments(pod)
    kept = numbers(*files)
    assert len(files) == 3
    assert kept == list(range(1000))[-len(kept) :]
    lost = ledger(pod)["lost"]
    assert isinstance(lost, dict)
    assert lost["segments"] == int(files[0].stem)
    assert ledger(pod)["packets"] == 1000


def test_the_spool_stays_below_its_cap(pod: Pod) -> None:
    pod.environ = {"NIGHTCAP_SPOOL_BYTES": "100000"}
    pod.order(an_order(rotation=Rotation(max_bytes=10**7, max_files=10**6)))
    pod.start()
    pod.wait_open()
    pod.link.send(3000, size=200)
    settle()
    held = sum(file.stat().st_size for file in (pod.spool / ID).rglob("*.pcap*"))
    assert held <= 150_000
    assert pod.terminate() == 0
    kept = numbers(*segments(pod))
    assert kept
    assert kept == list(range(3000))[-len(kept) :]


def test_a_full_disk_drops_the_oldest_and_goes_on(pod: Pod) -> None:
    pod.spool.mkdir()
    with small_disk(pod.spool, "400k"), closing(pod):
        pod.order(an_order(rotation=Rotation(max_bytes=60_000, max_files=1000)))
        pod.start()
        pod.wait_open()
        for first in range(0, 6000, 500):
            pod.link.send(500, size=150, first=first)
            time.sleep(0.1)
        time.sleep(1)
        pod.link.send(100, first=10_000)
        settle()
        assert pod.terminate() == 0
        # Nothing is given up but the oldest segments, whole.
        sent = [*range(6000), *range(10_000, 10_100)]
        found = numbers(*segments(pod))
        assert len(found) > 100
        assert found == sent[-len(found) :]
        assert (ledger(pod)["packets"], ledger(pod)["dropped"]) == (len(sent), 0)
        assert "segment dropped unshipped" in pod.events()


def test_on_a_full_disk_a_packet_is_lost_at_most_for_each_segment_that_goes(pod: Pod) -> None:
    """Segments are larger than what is written at once, so that the disk is full within them."""
    pod.spool.mkdir()
    with small_disk(pod.spool, "900k"), closing(pod):
        pod.order(an_order(rotation=Rotation(max_bytes=200_000, max_files=1000)))
        pod.start()
        pod.wait_open()
        sent = 20_000
        for first in range(0, sent, 1000):
            pod.link.send(1000, size=150, first=first)
            time.sleep(0.02)
        settle()
        assert pod.terminate() == 0
        book = ledger(pod)
        packets, dropped = book["packets"], book["dropped"]
        assert isinstance(packets, int)
        assert isinstance(dropped, int)
        assert packets + dropped == sent
        assert dropped <= pod.events().count("segment dropped unshipped")
        found = numbers(*segments(pod))
        assert found == sorted(set(found))
        assert found[-1] >= sent - 2
        assert len(found) >= found[-1] - found[0] + 1 - dropped


def test_a_spool_that_takes_nothing_is_a_state_that_ends_without_loss(pod: Pod) -> None:
    """What comes meanwhile waits in the ring."""
    pod.spool.mkdir()
    (pod.spool / ID).write_text("in the way")
    pod.order(an_order())
    pod.start()
    wait_for(lambda: "interface opened" in pod.events(), "opened all the same")
    pod.link.send(5)
    wait_for(lambda: '"reason": "spool-full"' in (pod.folder / "log").read_text(), "said")
    (pod.spool / ID).unlink()
    pod.link.send(5, first=5)
    wait_for(lambda: '"state": "capturing"' in (pod.folder / "log").read_text(), "goes on")
    assert pod.terminate() == 0
    assert numbers(*segments(pod)) == list(range(10))
    assert pod.events().count("interface opened") == 1


def test_what_passes_while_nothing_can_be_written_is_counted(pod: Pod) -> None:
    pod.spool.mkdir()
    (pod.spool / ID).write_text("in the way")
    pod.order(an_order())
    pod.start()
    pod.wait_open()
    pod.link.send(1)
    wait_for(lambda: '"reason": "spool-full"' in (pod.folder / "log").read_text(), "said")
    # More than the ring holds.
    sent = 4001
    pod.link.send(sent - 1, size=1400, first=1)
    (pod.spool / ID).unlink()
    wait_for(lambda: '"state": "capturing"' in (pod.folder / "log").read_text(), "goes on")
    settle()
    assert pod.terminate() == 0
    kept = numbers(*segments(pod))
    assert kept == list(range(len(kept)))
    counted = ledger(pod)
    assert 0 < len(kept) < sent
    assert (counted["packets"], counted["received"]) == (len(kept), sent)
    assert counted["dropped"] == sent - len(kept)
