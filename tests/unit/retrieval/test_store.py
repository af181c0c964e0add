"""What every store promises: a folder, and objects on an S3-speaking server."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightcap.contract.segments import BadName, StreamKey
from retrieval.store.base import OffsetConflict, Store, Tally
from tests.unit.retrieval.builders import CAPTURE, META, POD, STREAM, a_key, a_pcap, content
from tests.unit.retrieval.places import Place


@pytest.fixture
def stream(store: Store) -> StreamKey:
    store.create_stream(STREAM, META)
    return STREAM


@pytest.mark.usefixtures("stream")
def test_what_is_appended_is_there_and_durable_after_the_commit(store: Store) -> None:
    pcap = a_pcap()
    state = store.append(a_key(), 0, pcap[:50], complete=False)
    assert (state.size, state.complete) == (50, False)
    assert store.wait_durable(a_key(), 50, 5) == 50
    store.append(a_key(), 50, pcap[50:], complete=True)
    assert store.wait_durable(a_key(), len(pcap), 5) == len(pcap)
    assert content(store) == pcap
    state = store.segment(a_key())
    assert (state.size, state.complete, state.durable) == (len(pcap), True, len(pcap))


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize(
    ("offset", "body", "complete"),
    [
        pytest.param(0, b"again", False, id="from the start again"),
        pytest.param(3, b"rest", False, id="over what is there"),
        pytest.param(9, b"rest", False, id="behind a gap"),
        pytest.param(0, b"", False, id="nothing, at the start"),
    ],
)
def test_an_append_elsewhere_than_at_the_end_is_refused_with_the_size(
    store: Store, offset: int, body: bytes, complete: bool
) -> None:
    store.append(a_key(), 0, b"12345", complete=False)
    with pytest.raises(OffsetConflict) as refused:
        store.append(a_key(), offset, body, complete=complete)
    assert refused.value.segment.size == 5
    assert content(store) == b"12345"


@pytest.mark.usefixtures("stream")
def test_a_complete_segment_takes_no_more_but_may_be_completed_again(
    store: Store,
) -> None:
    store.append(a_key(), 0, b"12345", complete=True)
    for body, complete in ((b"6", False), (b"6", True), (b"", False)):
        with pytest.raises(OffsetConflict) as refused:
            store.append(a_key(), 5, body, complete=complete)
        assert (refused.value.segment.size, refused.value.segment.complete) == (5, True)
    assert store.append(a_key(), 5, b"", complete=True).size == 5
    assert store.wait_durable(a_key(), 5, 5) == 5
    assert store.append(a_key(), 5, b"", complete=True).complete


@pytest.mark.usefixtures("stream")
def test_a_heartbeat_and_the_end_of_nothing_make_no_file(store: Store) -> None:
    assert store.append(a_key(7), 0, b"", complete=False).size == 0
    assert store.append(a_key(7), 0, b"", complete=True).size == 0
    assert store.segments(STREAM) == ()


def test_another_process_takes_up_where_the_first_one_ended(place: Place) -> None:
    pcap = a_pcap(20)
    for begin in range(0, len(pcap), 100):
        store = place.open()
        if begin == 0:
            store.create_stream(STREAM, META)
        assert store.segment(a_key()).size == begin
        store.append(a_key(), begin, pcap[begin : begin + 100], complete=False)
        store.close()
    store = place.open()
    assert store.wait_durable(a_key(), len(pcap), 5) == len(pcap)
    assert content(store) == pcap
    store.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(min_size=1, max_size=400),
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 120), st.booleans()), max_size=40),
)
def test_any_order_of_appends_ends_with_the_exact_bytes(
    place: Place, data: bytes, steps: list[tuple[int, int, bool]]
) -> None:
    """Duplicates, gaps and overlaps are answered with the offset that lets a client go on.

    A store may know a duplicate by its bytes, and then needs not refuse it.
    """
    store = place.anew().open()
    try:
        store.create_stream(STREAM, META)
        size = 0
        for offset, length, waits in steps:
            body = data[offset : offset + length]
            if offset == size:
                size = store.append(a_key(), offset, body, complete=False).size
                assert offset + len(body) == size
            else:
                try:
                    answered = store.append(a_key(), offset, body, complete=False)
                except OffsetConflict as refused:
                    answered = refused.segment
                else:
                    assert body
                    assert offset < size
                assert answered.size == size
            if waits and size:
                assert store.wait_durable(a_key(), size, 5) >= size
        size = store.segment(a_key()).size
        store.append(a_key(), size, data[size:], complete=True)
        assert store.wait_durable(a_key(), len(data), 5) == len(data)
        assert content(store) == data
        assert store.tally(STREAM) == Tally(1, len(data))
    finally:
        store.close()


@pytest.mark.usefixtures("stream")
def test_of_appends_at_one_offset_at_the_same_time_one_wins(store: Store) -> None:
    wins: list[int] = []

    def write(number: int) -> None:
        size = 0
        for _ in range(20):
            try:
                size = store.append(a_key(), size, bytes([number]) * 1000, complete=False).size
                wins.append(number)
            except OffsetConflict as conflict:
                size = conflict.segment.size

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = content(store)
    assert len(stored) == 1000 * len(wins)
    assert all(len(set(stored[at : at + 1000])) == 1 for at in range(0, len(stored), 1000))
    assert store.tally(STREAM).bytes == len(stored)


@pytest.mark.usefixtures("stream")
def test_first_appends_to_one_interface_at_the_same_time_all_succeed(
    store: Store,
) -> None:
    with ThreadPoolExecutor(16) as pool:
        for interface in ("eth0", "eth1", "eth2", "eth3"):
            keys = [a_key(seq, interface) for seq in range(16)]
            list(pool.map(lambda key: store.append(key, 0, b"1234", complete=True), keys))
    assert store.tally(STREAM) == Tally(64, 256)


@pytest.mark.usefixtures("stream")
def test_recounting_names_the_streams_of_which_files_were_deleted(
    store: Store, place: Place
) -> None:
    store.append(a_key(), 0, b"12345", complete=True)
    store.wait_durable(a_key(), 5, 5)
    assert store.tally(STREAM) == Tally(1, 5)
    assert store.recount() == ()
    place.open_readable().delete_segment(a_key())
    assert store.recount() == (STREAM,)
    assert store.tally(STREAM) == Tally(0, 0)


@pytest.mark.usefixtures("stream")
def test_a_reader_keeps_what_it_opened_when_the_file_goes(store: Store) -> None:
    store.append(a_key(), 0, b"12345", complete=True)
    store.wait_durable(a_key(), 5, 5)
    with store.open(a_key()) as reader:
        store.delete_segment(a_key())
        assert reader.read_at(0, 9) == b"12345"
    with pytest.raises(FileNotFoundError):
        store.open(a_key())


@pytest.mark.usefixtures("stream")
def test_deleting_a_capture_leaves_nothing_of_it_and_all_of_the_others(
    store: Store,
) -> None:
    other = StreamKey("storefront", "abc", POD)
    store.create_stream(other, META)
    store.append(a_key(), 0, b"12345", complete=False)
    store.append(a_key(stream=other), 0, b"12345", complete=False)
    store.delete_capture("storefront", CAPTURE)
    assert list(store.captures()) == [("storefront", "abc")]
    assert not store.has_stream(STREAM)
    assert store.segment(a_key()).size == 0
    assert store.wait_durable(a_key(stream=other), 5, 5) == 5


@pytest.mark.usefixtures("stream")
def test_meta_report_and_link_types_are_kept(store: Store, place: Place) -> None:
    store.set_link(a_key(), 1)
    store.set_link(a_key(interface="any"), 113)
    store.set_addresses(STREAM, ("10.0.0.1",))
    store.write_report(STREAM, b"{}", 9)
    store.write_report(STREAM, b"{ }", 10)
    readable = place.open_readable()
    assert readable.streams(STREAM.namespace, STREAM.capture) == (STREAM,)
    meta = readable.meta(STREAM)
    assert meta is not None
    assert (meta.pod, meta.node, meta.links) == ("web-0", "node-a", {"eth0": 1, "any": 113})
    assert meta.ips == ("10.0.0.1",)
    assert store.report(STREAM) == readable.report(STREAM) == b"{ }"
    assert store.segments(STREAM) == ()


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("interface", ["meta.json", "report.json"])
def test_an_interface_called_like_a_file_of_the_store_is_refused(
    store: Store, interface: str
) -> None:
    with pytest.raises(BadName, match="interface"):
        store.append(a_key(interface=interface), 0, b"1", complete=False)
    assert store.meta(STREAM) is not None


@pytest.mark.parametrize(
    ("namespace", "capture"),
    [("..", "abc"), ("storefront", ".."), ("storefront", "a/b"), ("", "abc"), ("a", "")],
)
def test_a_name_that_is_no_name_is_no_folder(store: Store, namespace: str, capture: str) -> None:
    with pytest.raises(BadName):
        store.streams(namespace, capture)
    with pytest.raises(BadName):
        store.delete_capture(namespace, capture)
