"""`live.pcapng` over a real store, in a time of its own; the API server is a small one."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from nightcap.contract.reports import parse_report
from nightcap.contract.segments import StreamKey
from nightcap.pcap.formats import Record, pack_record
from nightcap.pcap.pcapng import Names, Statistics
from retrieval.access import CaptureRef, Verb, question
from retrieval.files import streams
from retrieval.files.merged import HOLD_SECONDS, Cast, Live, Outside, Title
from retrieval.files.packets import Filters
from retrieval.files.people import People
from retrieval.files.wanted import Wanted
from retrieval.store.base import StreamMeta
from retrieval.stored_reports import StoredReport, dump_stored
from tests.unit.retrieval.builders import CAPTURE, STREAM, a_capture, a_key, a_report
from tests.unit.retrieval.merging import (
    BASE,
    ETHERNET,
    OTHER,
    START,
    Merged,
    only,
    packets,
    values_of,
)

BORN = StreamKey("storefront", CAPTURE, "90d00000-0000-4000-8000-000000000003")


class World:
    """A live answer in a time of its own: things happen while it sleeps."""

    def __init__(
        self,
        merged: Merged,
        happenings: dict[float, Callable[[], object]],
        wanted: Wanted | None = None,
    ) -> None:
        self.now = 0.0
        self.may_read, self.over, self.left = True, False, False
        self.data = b""
        self.shown: list[tuple[float, str, int]] = []
        self._happenings = sorted(happenings.items())
        wanted = wanted or Wanted()
        self._stack = ExitStack()
        self._live = Live(
            store=merged.store,
            namespace="storefront",
            capture_uid=CAPTURE,
            wanted=wanted,
            filters=Filters(wanted.filter, lambda *_: None),
            title=Title("storefront", "dns"),
            cast=Cast(),
            outside=Outside(
                is_allowed=lambda: self.may_read,
                is_over=lambda: self.over,
                has_left=lambda: self.left,
                clock=lambda: self.now,
                sleep=self._sleep,
            ),
            stack=self._stack,
        )

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._happenings and self._happenings[0][0] <= self.now:
            self._happenings.pop(0)[1]()

    def watch(self, seconds: float = 60) -> list[tuple[float, str, int]]:
        """(when it was shown, interface, nanoseconds after the start) of each packet."""
        for piece in self._live.pieces():
            self.data += piece
            found = packets(values_of(self.data))
            self.shown += [(self.now, *packet) for packet in found[len(self.shown) :]]
            if self.now >= seconds:
                break
        self._stack.close()
        return self.shown


def leave(world: World) -> None:
    world.left = True


def test_live_shows_what_is_there_then_what_comes_soon_after_it_came(merged: Merged) -> None:
    merged.put(10, complete=False)
    merged.put(5, stream=OTHER, complete=False)
    world = World(
        merged,
        {
            3.0: lambda: merged.put(3 * 10**9, complete=True),
            4.0: lambda: merged.put(4 * 10**9, seq=2, complete=False),
            5.0: lambda: merged.put(5 * 10**9, interface="net1"),
            8.0: lambda: leave(world),
        },
    )
    shown = world.watch()
    assert [packet for _, *packet in shown] == [
        ["web-1:eth0", 5],
        ["web-0:eth0", 10],
        ["web-0:eth0", 3 * 10**9],
        ["web-0:eth0", 4 * 10**9],
        ["web-0:net1", 5 * 10**9],
    ]
    assert [at for at, *_ in shown[:2]] == [0, 0]
    for came, (at, *_) in zip((3, 4, 5), shown[2:], strict=True):
        assert came <= at <= came + HOLD_SECONDS + 0.5


def test_a_pod_that_is_alone_waits_for_nobody(merged: Merged) -> None:
    merged.put(10, complete=False)
    world = World(
        merged,
        {3.0: lambda: merged.put(20, complete=False), 5.0: lambda: leave(world)},
        Wanted(pods=frozenset({"web-0"})),
    )
    assert world.watch()[1][0] <= 3.2


def test_a_late_pod_is_shown_in_order_within_the_hold_and_else_late(merged: Merged) -> None:
    merged.put(1, complete=False)
    merged.put(2, stream=OTHER, complete=False)
    world = World(
        merged,
        {
            3.0: lambda: merged.put(30, complete=False),
            3.2: lambda: merged.put(25, stream=OTHER, complete=False),
            6.0: lambda: merged.put(60, complete=False),
            9.0: lambda: merged.put(55, stream=OTHER, complete=False),
            12.0: lambda: leave(world),
        },
    )
    assert [at for *_, at in world.watch()] == [1, 2, 25, 30, 60, 55]


def test_a_pod_that_is_born_meanwhile_joins_with_its_name(merged: Merged) -> None:
    def bear() -> None:
        meta = StreamMeta(pod="web-2", node="b", capture="dns", ips=("10.0.0.3",))
        merged.store.create_stream(BORN, meta)
        merged.put(20, stream=BORN, complete=False)

    merged.put(10, complete=False)
    world = World(merged, {3.0: bear, 6.0: lambda: leave(world)})
    assert [packet for _, *packet in world.watch()] == [["web-0:eth0", 10], ["web-2:eth0", 20]]
    assert only(values_of(world.data), Names)[-1].records == (("10.0.0.3", ("web-2",)),)


def test_a_pod_is_named_as_soon_as_it_has_an_address(merged: Merged) -> None:
    """Wireshark showed pods that were born into a capture as numbers for as long as it ran."""
    nameless = StreamMeta(pod="web-2", node="b", capture="dns")
    merged.store.create_stream(BORN, nameless)
    merged.put(20, stream=BORN, complete=False)
    world = World(
        merged,
        {
            3.0: lambda: merged.store.set_addresses(BORN, ("10.0.0.3",)),
            6.0: lambda: leave(world),
        },
    )
    world.watch()
    told = [names.records for names in only(values_of(world.data), Names)]
    assert told.count((("10.0.0.3", ("web-2",)),)) == 1


def test_a_record_that_is_half_there_is_shown_when_it_is_whole(merged: Merged) -> None:
    merged.put(10, complete=False)
    record = pack_record(ETHERNET, Record(START + 20, 99, b"data"))
    size = merged.store.segment(a_key()).size

    def append(begin: int, end: int) -> None:
        merged.store.append(a_key(), size + begin, record[begin:end], complete=False)

    world = World(
        merged,
        {
            2.0: lambda: append(0, 7),
            3.0: lambda: append(7, 18),
            4.0: lambda: append(18, 20),
            5.0: lambda: leave(world),
        },
    )
    shown = world.watch()
    assert [at for *_, at in shown] == [10, 20]
    assert shown[1][0] >= 4


def test_a_file_that_is_deleted_while_it_is_open_is_read_to_its_end(merged: Merged) -> None:
    merged.put(10, complete=False)

    def replace() -> None:
        merged.put(20, complete=False)
        merged.store.delete_segment(a_key())
        merged.put(30, seq=2, complete=False)

    world = World(merged, {3.0: replace, 5.0: lambda: leave(world)})
    assert [at for *_, at in world.watch()] == [10, 20, 30]


def shipped(merged: Merged, dropped: int = 0, is_last: bool = True) -> None:
    seq = 2 if is_last else 1
    report = parse_report(a_report(seq, received=9, dropped=dropped, shipped=is_last))
    merged.store.write_report(STREAM, dump_stored(StoredReport(report, 2.0)), seq)


def finish(world: World) -> None:
    world.over = True


def test_live_ends_with_the_capture_when_all_is_shipped(merged: Merged) -> None:
    merged.store.delete_capture("storefront", CAPTURE)
    merged.store.create_stream(STREAM, StreamMeta(pod="web-0", node="a", capture="dns"))
    merged.put(10, complete=False)
    shipped(merged, is_last=False)
    world = World(
        merged,
        {
            3.0: lambda: finish(world),
            5.0: lambda: merged.put(20, complete=True),
            6.0: lambda: shipped(merged, dropped=3),
        },
    )
    assert [at for *_, at in world.watch()] == [10, 20]
    assert 6 <= world.now <= 6 + 2.5
    assert only(values_of(world.data), Statistics)[-1].dropped == 3


def test_live_ends_after_a_while_when_a_pod_does_not_report(merged: Merged) -> None:
    merged.put(10, complete=False)
    world = World(merged, {3.0: lambda: finish(world)})
    world.watch()
    assert 10 <= world.now <= 13


def test_live_ends_when_the_right_is_taken_away(merged: Merged) -> None:
    merged.put(10, complete=False)

    def revoke() -> None:
        world.may_read = False

    world = World(merged, {3.0: revoke, 6.0: lambda: merged.put(20)})
    assert [at for *_, at in world.watch()] == [10]
    assert world.now <= 5.5


def test_drops_are_told_when_they_happen(merged: Merged) -> None:
    merged.put(10, complete=False)
    world = World(
        merged, {3.0: lambda: shipped(merged, 7, is_last=False), 20.0: lambda: leave(world)}
    )
    world.watch()
    assert [s.dropped for s in only(values_of(world.data), Statistics)] == [7]


def test_a_quiet_reader_gets_a_sign_of_life(merged: Merged) -> None:
    """Writing is the only way to find out that the other machine is gone."""
    sizes = []
    world = World(
        merged,
        {
            29.0: lambda: sizes.append(len(world.data)),
            33.0: lambda: sizes.append(len(world.data)),
            34.0: lambda: leave(world),
        },
    )
    assert world.watch() == []
    assert sizes[1] > sizes[0] > 0


def test_live_readers_are_bounded_and_a_seat_is_free_again(
    merged: Merged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.LiveSeats.__init__, "__defaults__", (1,))
    merged = Merged(merged.store, merged.api)
    merged.put(10, complete=False)
    merged.is_ready = False  # the program ends: live answers do, too
    answer = merged.client.open(
        f"{BASE}/live.pcapng", headers={"Authorization": "Bearer reader"}, buffered=False
    )
    refused = merged.ask("live.pcapng")
    assert refused.status_code == 503
    assert refused.text.startswith("1 people read live already")
    assert refused.headers["Retry-After"] == "10"
    answer.close()
    assert merged.ask("live.pcapng").status_code == 200


def test_a_standing_yes_holds_until_the_api_server_says_no(merged: Merged) -> None:
    people = People(merged.api.client, clock=lambda: 0)
    ref = CaptureRef("storefront", "dns")
    capture = people.find(ref)
    assert capture is not None

    def standing(user: str = "reader") -> streams.StandingYes:
        judge = People(merged.api.client)
        return streams.StandingYes(judge, user, question(ref, Verb.GET), ref, capture)

    assert standing().holds()
    assert not standing().is_over()
    merged.api.is_down = True
    assert standing().holds()
    merged.api.is_down = False
    assert not standing("capturer").holds()
    assert not standing("stranger").holds()
    merged.api.captures = [a_capture(phase="Finished")]
    ended = standing()
    assert ended.holds()
    assert ended.is_over()
    merged.api.captures = [a_capture(uid="ca9a0000-0000-4000-8000-000000000009")]
    assert not standing().holds()
    merged.api.captures = []
    assert not standing().holds()
