import pytest

from retrieval.files.catalog import Catalog
from retrieval.store.base import Store, StreamMeta
from tests.unit.retrieval.builders import CAPTURE, HEADER, STREAM, a_key, a_pcap, a_record


@pytest.fixture
def catalog(store: Store) -> Catalog:
    store.create_stream(STREAM, StreamMeta(pod="web-0", node="node-a", capture="dns"))
    return Catalog(store)


def put(store: Store, data: bytes, *, complete: bool) -> None:
    size = store.segment(a_key()).size
    store.append(a_key(), size, data, complete=complete)
    store.wait_durable(a_key(), size + len(data), 5)


def test_a_growing_file_is_counted_on_from_where_counting_ended(
    store: Store, catalog: Catalog
) -> None:
    put(store, HEADER + a_record(10**6) + a_record(2 * 10**6)[:20], complete=False)
    (file,) = catalog.files("storefront", CAPTURE)
    assert (file.size, file.packets, file.last_ns) == (24 + 76, 1, 10**9)
    put(store, a_record(2 * 10**6)[20:] + a_record(3 * 10**6), complete=True)
    (file,) = catalog.files("storefront", CAPTURE, count_seconds=2)
    assert (file.size, file.packets, file.last_ns) == (24 + 3 * 76, 3, 3 * 10**9)
    assert file.first_ns == 10**9
    assert file.complete


def test_a_complete_file_is_counted_only_while_there_is_time(
    store: Store, catalog: Catalog
) -> None:
    pcap = a_pcap(5000)
    put(store, pcap, complete=True)
    (file,) = catalog.files("storefront", CAPTURE)
    assert (file.size, file.packets, file.last_ns) == (len(pcap), None, None)
    assert file.name == "web-0_eth0-1700000000000000.pcap"
    (file,) = catalog.files("storefront", CAPTURE, count_seconds=5)
    assert file.packets == 5000


def test_a_file_that_was_deleted_and_sent_again_is_read_anew(directory: Store) -> None:
    """In a folder alone: what was deleted of an object store does not come back."""
    store, catalog = directory, Catalog(directory)
    store.create_stream(STREAM, StreamMeta(pod="web-0", node="node-a", capture="dns"))
    put(store, a_pcap(10), complete=False)
    catalog.files("storefront", CAPTURE)
    store.delete_segment(a_key())
    put(store, a_pcap(2, first_us=5 * 10**6), complete=False)
    (file,) = catalog.files("storefront", CAPTURE)
    assert (file.packets, file.first_ns) == (2, 5 * 10**9)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEADER, id="a header alone"),
        pytest.param(HEADER + a_record(1)[:40], id="half a record"),
        pytest.param(HEADER + b"\xff" * 200, id="damage at once"),
    ],
)
def test_a_file_without_a_whole_packet_is_not_listed(
    store: Store, catalog: Catalog, data: bytes
) -> None:
    put(store, data, complete=True)
    assert catalog.files("storefront", CAPTURE, count_seconds=1) == []


def test_damage_in_a_file_does_not_hide_it(store: Store, catalog: Catalog) -> None:
    data = a_pcap(3) + b"\xff" * 100
    put(store, data, complete=True)
    (file,) = catalog.files("storefront", CAPTURE, count_seconds=1)
    assert (file.packets, file.size) == (3, len(data))
