"""What an object store promises beyond a folder: any number of replicas, and healing."""

import random
import threading

import pytest

from nightcap.contract.segments import StreamKey
from retrieval.store.base import (
    OffsetConflict,
    SegmentState,
    StoredSegment,
    StoreFailed,
    StreamMeta,
    Tally,
)
from retrieval.store.healing import Ages
from retrieval.store.layout import Found, read_segment
from retrieval.store.object_streams import Times
from retrieval.store.objects_writing import ObjectStore
from tests.unit.retrieval.builders import CAPTURE, META, STREAM, a_key, content, names_in
from tests.unit.retrieval.places import Prefix
from tests.unit.retrieval.s3 import S3Server

FOLDER = f"{STREAM.path}/eth0/00000001.pcap"
AT_ONCE = Times(ages=Ages(compose=-9, settled=-9, read=-9, deleted=10**9))
"""All is due that is due some time; the store's clock has whole seconds."""


@pytest.fixture
def stores(prefix: Prefix) -> tuple[ObjectStore, ObjectStore]:
    """Two replicas."""
    one, other = prefix.open(), prefix.open()
    one.create_stream(STREAM, META)
    return one, other


def wait_composed(store: ObjectStore) -> None:
    store._composers.submit(lambda: None).result(10)
    store._composers.shutdown()


def test_an_append_goes_to_any_replica(stores: tuple[ObjectStore, ObjectStore]) -> None:
    for number in range(10):
        state = stores[number % 2].append(a_key(), number, b"%d" % number, complete=number == 9)
        assert state == SegmentState(number + 1, number == 9, number + 1)
    for store in stores:
        assert store.segment(a_key()) == SegmentState(10, True, 10)
        assert content(store) == b"0123456789"
        with pytest.raises(OffsetConflict):
            store.append(a_key(), 10, b"x", complete=False)


def test_what_a_replica_remembers_is_a_guess_that_the_store_corrects(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    one, other = stores
    one.append(a_key(), 0, b"12", complete=False)
    other.append(a_key(), 2, b"34", complete=False)
    with pytest.raises(OffsetConflict) as refused:
        one.append(a_key(), 2, b"xx", complete=False)
    assert refused.value.segment.size == 4
    other.append(a_key(), 4, b"", complete=True)
    with pytest.raises(OffsetConflict) as refused:
        one.append(a_key(), 4, b"xx", complete=False)
    assert refused.value.segment == SegmentState(4, True, 4)
    assert content(one) == b"1234"


def test_an_append_that_was_kept_and_never_answered_is_known_by_its_bytes(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    """A sidecar that hears nothing but a conflict at 0 would send it all under another number."""
    one, other = stores
    one.append(a_key(), 0, b"1234", complete=False)
    assert other.append(a_key(), 0, b"1234", complete=False).size == 4
    assert other.append(a_key(), 0, b"123456", complete=True) == SegmentState(4, False, 4)
    with pytest.raises(OffsetConflict):
        other.append(a_key(), 0, b"abcd", complete=False)
    one.append(a_key(), 4, b"56", complete=False)
    # The bytes were kept, the end was not: whoever hears yes throws the segment away.
    assert other.append(a_key(), 4, b"56", complete=True) == SegmentState(6, True, 6)
    assert one.segment(a_key()).complete
    assert other.append(a_key(), 4, b"56", complete=True) == SegmentState(6, True, 6)


def test_appends_of_many_to_two_replicas_end_with_one_content(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    wins: list[tuple[int, bytes]] = []

    def write(number: int) -> None:
        source, size = random.Random(number), 0  # noqa: S311 - the same choices each time
        for turn in range(25):
            body = bytes([number, turn]) * source.randint(1, 300)
            try:
                state = source.choice(stores).append(a_key(), size, body, complete=False)
            except OffsetConflict as conflict:
                size = conflict.segment.size
            else:
                wins.append((size, body))
                size = state.size

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = content(stores[0])
    # Each that was told yes has its bytes where it said, and nobody else has written a byte.
    assert sum(len(body) for _, body in wins) == len(stored)
    assert all(stored[at : at + len(body)] == body for at, body in wins)


def test_of_two_replicas_one_ends_a_segment_and_the_other_sees_it(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    for seq in range(20):
        key = a_key(seq)
        stores[0].append(key, 0, b"1234", complete=False)
        stores[1].segment(key)
        answers: list[object] = []

        def act(store: ObjectStore, body: bytes, complete: bool, key=key, answers=answers) -> None:  # type: ignore[no-untyped-def]
            try:
                answers.append(store.append(key, 4, body, complete=complete))
            except OffsetConflict as conflict:
                answers.append(conflict)

        threads = [
            threading.Thread(target=act, args=(stores[0], b"", True)),
            threading.Thread(target=act, args=(stores[1], b"5678", False)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(answer, SegmentState) for answer in answers) == 1
        state = stores[0].segment(key)
        assert state in (SegmentState(4, True, 4), SegmentState(8, False, 8))


def test_a_complete_segment_becomes_one_object_and_its_appends_go_later(prefix: Prefix) -> None:
    store = prefix.open()
    store.create_stream(STREAM, META)
    for at in range(0, 100, 10):
        store.append(a_key(), at, b"0123456789", complete=at == 90)
    reading = store.open(a_key())
    assert reading.read_at(0, 5) == b"01234"
    wait_composed(store)
    assert f"{FOLDER}/whole" in names_in(store)
    assert f"{FOLDER}/{0:012d}" in names_in(store)
    healer = ObjectStore(prefix.server.bucket(prefix.url), AT_ONCE)
    healer.heal()
    assert names_in(store) == {f"{FOLDER}/whole", f"{STREAM.path}/meta.json"}
    # A reader that had begun goes on in the whole, wherever it was.
    assert [reading.read_at(at, 10) for at in (95, 10, 100)] == [b"56789", b"0123456789", b""]
    assert content(store) == b"0123456789" * 10
    assert store.segment(a_key()) == SegmentState(100, True, 100)
    assert [s.size for s in prefix.open_readable().segments(STREAM)] == [100]


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_dead_replica_had_completed_is_composed_by_another(
    prefix: Prefix, count: int
) -> None:
    bucket = prefix.server.bucket(prefix.url)
    bucket.create(f"{STREAM.path}/meta.json", b'{"pod":"web-0","node":"a","capture":"dns"}')
    for number in range(count):
        bucket.create(f"{FOLDER}/{number * 4:012d}", b"1234")
    bucket.create(f"{FOLDER}/{count * 4:012d}", b"")
    ObjectStore(bucket, Times(ages=Ages(compose=-9))).heal()
    assert bucket.get(f"{FOLDER}/whole")[0] == b"1234" * count
    assert content(prefix.open()) == b"1234" * count


def test_a_large_segment_is_composed_piece_by_piece(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.store.healing.AT_ONCE_BYTES", 2**20)
    store = prefix.open()
    store.create_stream(STREAM, META)
    parts = [random.Random(n).randbytes(2**21) for n in range(4)]  # noqa: S311
    for number, part in enumerate(parts):
        store.append(a_key(), number * 2**21, part, complete=number == 3)
    wait_composed(store)
    ObjectStore(prefix.server.bucket(prefix.url), AT_ONCE).heal()
    assert content(store) == b"".join(parts)


def test_appends_that_join_nothing_are_no_part_of_the_segment_and_go(prefix: Prefix) -> None:
    """What a request leaves that was under way while all this went by."""
    bucket = prefix.server.bucket(prefix.url)
    for offset, body in ((0, b"1234"), (2, b"xx"), (4, b"5678"), (9, b"xx")):
        bucket.create(f"{FOLDER}/{offset:012d}", body)
    store = ObjectStore(bucket, AT_ONCE)
    assert content(store) == b"12345678"
    assert store.segment(a_key()) == SegmentState(8, False, 8)
    store.heal()
    assert names_in(store) == {f"{FOLDER}/{0:012d}", f"{FOLDER}/{4:012d}"}


def test_nothing_young_is_healed_away(stores: tuple[ObjectStore, ObjectStore]) -> None:
    stores[0].append(a_key(), 0, b"1234", complete=True)
    wait_composed(stores[0])
    stores[0].append(a_key(2), 0, b"1234", complete=False)
    stores[0].delete_segment(a_key(2))
    stores[0].bucket.create(f"{STREAM.path}/eth0/00000003.pcap/{7:012d}", b"stray")
    before = names_in(stores[0])
    stores[1].heal()
    assert names_in(stores[0]) == before


def test_a_deleted_segment_is_gone_at_once_for_all_and_its_bytes_a_while_later(
    stores: tuple[ObjectStore, ObjectStore], prefix: Prefix
) -> None:
    one, other = stores
    one.append(a_key(), 0, b"1234", complete=True)
    wait_composed(one)
    with prefix.open_readable().open(a_key()) as reading:
        prefix.open_readable().delete_segment(a_key())
        for store in (one, other, prefix.open_readable()):
            assert store.streams(STREAM.namespace, CAPTURE) == (STREAM,)
            assert store.segments(STREAM) == ()
            with pytest.raises(FileNotFoundError):
                store.open(a_key())
        assert reading.read_at(0, 9) == b"1234"
    assert other.tally(STREAM) == Tally()
    # Its sidecar is told that all is safe, and does not send it again.
    assert other.segment(a_key()) == SegmentState(4, True, 4)
    ObjectStore(one.bucket, AT_ONCE).heal()
    assert names_in(one) == {f"{FOLDER}/deleted-4", f"{STREAM.path}/meta.json"}
    ObjectStore(one.bucket, Times(ages=Ages(read=-9, deleted=-9))).heal()
    assert names_in(one) == {f"{STREAM.path}/meta.json"}


def test_what_is_appended_to_a_segment_after_it_was_deleted_goes_the_same_way(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    one, other = stores
    one.append(a_key(), 0, b"1234", complete=False)
    other.delete_segment(a_key())
    assert other.append(a_key(), 4, b"56", complete=False) == SegmentState(6, False, 6)
    assert other.append(a_key(), 6, b"78", complete=True) == SegmentState(8, True, 8)
    with pytest.raises(OffsetConflict) as refused:
        other.append(a_key(), 0, b"1234", complete=False)
    assert refused.value.segment == SegmentState(4, True, 4)
    assert other.segments(STREAM) == ()


def test_of_reports_the_highest_number_counts_whoever_wrote_it_last(
    stores: tuple[ObjectStore, ObjectStore], prefix: Prefix
) -> None:
    one, other = stores
    other.write_report(STREAM, b"{11}", 11)
    one.write_report(STREAM, b"{9}", 9)
    assert one.report(STREAM) == prefix.open_readable().report(STREAM) == b"{11}"
    assert one.reported() == {}
    healer = ObjectStore(one.bucket, AT_ONCE)
    healer.heal()
    assert healer.reported() == {STREAM: 11}
    reports = {name for name in names_in(one) if "/report.json/" in name}
    assert reports == {f"{STREAM.path}/report.json/{11:016d}"}


def test_meta_that_two_replicas_change_at_once_has_both_changes(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    threads = [
        threading.Thread(target=store.set_link, args=(a_key(interface=f"eth{n}"), 1))
        for n, store in enumerate((*stores, *stores))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meta = stores[0].meta(STREAM)
    assert meta is not None
    assert meta.links == {f"eth{n}": 1 for n in range(4)}


def test_a_stream_that_both_replicas_begin_is_one(
    stores: tuple[ObjectStore, ObjectStore],
) -> None:
    one, other = stores
    other.create_stream(STREAM, StreamMeta(pod="another", node="", capture=""))
    assert other.meta(STREAM) == META
    assert other.has_stream(STREAM)
    assert not one.has_stream(StreamKey("mail", CAPTURE, STREAM.pod_uid))


def test_a_reader_sees_a_segment_grow_through_another_replica(
    stores: tuple[ObjectStore, ObjectStore], prefix: Prefix
) -> None:
    stores[0].append(a_key(), 0, b"1234", complete=False)
    readable = prefix.open_readable()
    with readable.open(a_key()) as reader:
        assert reader.read_at(0, 9) == b"1234"
        stores[1].append(a_key(), 4, b"56", complete=False)
        assert reader.read_at(4, 9) == b"56"
        stores[0].append(a_key(), 6, b"78", complete=True)
        assert reader.read_at(3, 9) == b"45678"


def test_reading_takes_few_requests_and_little_memory(prefix: Prefix) -> None:
    store = prefix.open()
    store.create_stream(STREAM, META)
    body = random.Random(1).randbytes(2**22)  # noqa: S311
    for number in range(4):
        store.append(a_key(), number * 2**22, body, complete=False)
    readers = [prefix.open_readable().open(a_key()) for _ in range(2)]
    for offset in range(0, 2**24, 2**16):
        for reader in readers:
            assert reader.read_at(offset, 2**16) == body[offset % 2**22 :][: 2**16]
            assert len(reader._ahead) <= 2**22
    for reader in readers:
        reader.close()


def test_names_that_are_not_ours_are_passed_over(prefix: Prefix) -> None:
    bucket = prefix.server.bucket(prefix.url)
    for path in ("readme", "storefront/abc/x", f"{STREAM.path}/eth0/notes.txt",
                 f"{STREAM.path}/eth0/1.pcap/{0:012d}", f"{FOLDER}/core", f"{FOLDER}/1",
                 "UPPER/abc/def/eth0/00000001.pcap/whole"):  # fmt: skip
        bucket.create(path, b"hello")
    store = prefix.open()
    store.heal()
    assert list(store.captures()) == [("storefront", "abc"), ("storefront", CAPTURE)]
    assert store.streams("storefront", "abc") == ()
    assert store.segments(STREAM) == ()
    assert len(names_in(store)) == 7


# A store that refuses or is away.


def test_a_store_that_is_away_is_named_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = S3Server(tmp_path_factory.mktemp("away"))
    try:
        store = ObjectStore(server.bucket())
        store.check()
        store.create_stream(STREAM, META)
        store.append(a_key(), 0, b"1234", complete=False)
        server.stop()
        for act in (
            lambda: store.append(a_key(), 4, b"56", complete=False),
            lambda: store.streams("storefront", CAPTURE),
            lambda: content(store),
            lambda: store.delete_segment(a_key()),
        ):
            with pytest.raises(StoreFailed, match=r"object store: (put|list) s3://captures/test-1"):
                act()
        server.start()
        assert store.append(a_key(), 4, b"56", complete=True).size == 6
        assert content(store) == b"123456"
        store.close()
    finally:
        server.stop()


def test_a_chain_ends_where_an_append_is_missing() -> None:
    def part(offset: int, size: int) -> Found:
        return Found(f"{FOLDER}/{offset:012d}", size, float(offset))

    objects = read_segment([part(0, 3), part(3, 2), part(6, 0), part(2, 5), part(10, 0)])
    assert objects.extent == (5, False)
    assert [each.size for each in objects.strays()] == [0, 5, 0]
    objects.parts[5] = part(5, 1)
    assert objects.extent == (6, True)
    assert StoredSegment(a_key(), *objects.extent, objects.changed_at).size == 6


def test_of_large_appends_a_few_go_at_once_and_the_others_are_put_off(
    stores: tuple[ObjectStore, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty that shared a slow line once all took longer than their sidecars waited."""
    monkeypatch.setattr("retrieval.store.objects_writing.SLOT_SECONDS", 0.05)
    store, body = stores[0], bytes(2**20)
    held = [store._slot(a_key(n), body) for n in range(16)]
    for slot in held:
        slot.__enter__()
    with pytest.raises(StoreFailed, match="slower than they come"):
        store.append(a_key(), 0, body, complete=False)
    assert store.append(a_key(2), 0, body[:1000], complete=False).size == 1000
    held[0].__exit__(None, None, None)
    assert store.append(a_key(), 0, body, complete=False).size == 2**20
