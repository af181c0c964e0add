"""The reflector against a small real HTTP server; the real API server is e2e's."""

import logging
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from nightcap.contract.objects import ObjectMeta
from nightcap.kube import reflector as reflector_module
from nightcap.kube.reflector import Change, Reflector
from tests.patience import eventually
from tests.unit.kube.small_api import SmallApi

LIST = "/api/v1/pods"


class Thing(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    size: int = 0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector_module, "_FIRST_DELAY_SECONDS", 0.02)


class Followed:
    def __init__(self, api: SmallApi, **options: object) -> None:
        self.changes: list[Change[Thing]] = []
        self.reflector: Reflector[Thing] = Reflector(
            api.client(),
            LIST,
            msgspec.json.Decoder(Thing).decode,
            name="things",
            on_change=self.changes.append,
            **options,  # type: ignore[arg-type]
        )
        self.reflector.start()

    def kinds(self) -> list[tuple[str, str]]:
        return [(change.kind, change.object.metadata.name) for change in self.changes]

    def names(self) -> list[str]:
        return sorted(item.metadata.name for item in self.reflector.items())


@pytest.fixture
def follow(api: SmallApi) -> Iterator[Callable[..., Followed]]:
    started: list[Followed] = []

    def start(**options: object) -> Followed:
        started.append(Followed(api, **options))
        assert started[-1].reflector.wait_synced(5)
        eventually(lambda: started[-1].reflector.watches > 0)
        return started[-1]

    yield start
    for followed in started:
        followed.reflector.stop()


def test_lists_in_pages_and_watches_from_where_the_list_ended(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    for n in range(7):
        api.put(f"{LIST}/p{n}")
    things = follow(page_size=3, field_selector="spec.nodeName=a", label_selector="x=y")
    assert things.names() == [f"p{n}" for n in range(7)]
    assert things.kinds() == [("added", f"p{n}") for n in range(7)]
    eventually(lambda: len(api.requests) == 4)
    pages, watch = api.requests[:3], api.requests[3]
    assert [query.get("continue") for _, _, query, _ in pages] == [None, "3", "6"]
    assert {query["limit"] for _, _, query, _ in pages} == {"3"}
    query = watch[2]
    assert query["resourceVersion"] == "107"
    assert query["allowWatchBookmarks"] == "true"
    assert 240 <= int(query["timeoutSeconds"]) <= 360
    selectors = {(q["fieldSelector"], q["labelSelector"]) for _, _, q, _ in api.requests}
    assert selectors == {("spec.nodeName=a", "x=y")}


def test_an_empty_list_is_in_sync_too(follow: Callable[..., Followed]) -> None:
    assert follow().reflector.items() == ()


def test_events_change_the_copy_before_they_are_told(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    things = follow()
    api.put(f"{LIST}/a", size=1)
    api.put(f"{LIST}/a", size=2)
    eventually(lambda: len(things.changes) == 2)
    assert things.reflector.get("ns", "a") == things.changes[1].object
    assert things.reflector.by_uid("uid-a") == things.changes[1].object
    api.delete(f"{LIST}/a")
    eventually(lambda: len(things.changes) == 3)
    assert things.kinds() == [("added", "a"), ("modified", "a"), ("deleted", "a")]
    old = things.changes[1].old
    assert old is not None
    assert old.size == 1
    assert things.reflector.get("ns", "a") is None
    assert things.reflector.by_uid("uid-a") is None


def test_broken_connection_goes_on_from_the_last_version_without_a_list(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    things = follow()
    api.put(f"{LIST}/a")
    eventually(lambda: things.names() == ["a"])
    api.cut_watches()
    api.put(f"{LIST}/b")
    eventually(lambda: things.names() == ["a", "b"])
    assert things.kinds() == [("added", "a"), ("added", "b")]
    assert things.reflector.lists == 1
    assert things.reflector.watches == 2


def test_bookmark_moves_the_version_that_the_next_watch_begins_at(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    things = follow()
    api.say("BOOKMARK", {"metadata": {"resourceVersion": "5000"}})
    api.version = 5000
    eventually(lambda: things.reflector._version == "5000")
    api.cut_watches()
    eventually(lambda: things.reflector.watches == 2)
    assert api.requests[-1][2]["resourceVersion"] == "5000"
    assert things.reflector.lists == 1


GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


@pytest.mark.parametrize("way", ["as an event", "as an answer"])
def test_lost_history_is_listed_again_and_only_differences_are_told(
    api: SmallApi, follow: Callable[..., Followed], way: str
) -> None:
    for name in ("stays", "goes", "grows", "comes-back"):
        api.put(f"{LIST}/{name}", size=1)
    things = follow()
    things.changes.clear()
    with api.changed:  # what happens while nobody watches
        del api.objects[f"{LIST}/goes"]
        comes_back = api.objects[f"{LIST}/comes-back"]
        api.objects[f"{LIST}/comes-back"] = {
            "metadata": {**comes_back["metadata"], "uid": "another", "resourceVersion": "150"}
        }
        grows = api.objects[f"{LIST}/grows"]
        api.objects[f"{LIST}/grows"] = {
            "metadata": {**grows["metadata"], "resourceVersion": "151"},
            "size": 2,
        }
    if way == "as an event":
        api.say("ERROR", GONE)
    else:
        items = [item for _, item in sorted(api.objects.items())]
        page = {"metadata": {"resourceVersion": "151"}, "items": items}
        api.answers["GET", LIST] = [(410, GONE), (200, page), (503, {})]
        api.cut_watches()
    eventually(lambda: things.reflector.lists == 2)
    eventually(lambda: len(things.changes) == 4)
    assert things.kinds() == [
        ("deleted", "goes"),
        ("deleted", "comes-back"),
        ("added", "comes-back"),
        ("modified", "grows"),
    ]
    assert things.names() == ["comes-back", "grows", "stays"]
    assert things.reflector.by_uid("uid-comes-back") is None
    assert things.reflector.by_uid("another") is not None


def test_server_that_is_away_at_first_is_asked_again(api: SmallApi) -> None:
    busy = (503, {"code": 503, "message": "starting"})
    page = {"metadata": {"resourceVersion": "1"}, "items": []}
    api.answers["GET", LIST] = [busy, busy, (200, page)]
    things = Followed(api)
    assert things.reflector.wait_synced(5)
    assert things.reflector.failures >= 2
    things.reflector.stop()


def test_object_that_does_not_decode_is_kept_out_and_named(
    api: SmallApi, follow: Callable[..., Followed], caplog: pytest.LogCaptureFixture
) -> None:
    api.put(f"{LIST}/bad", size="many")
    api.put(f"{LIST}/good")
    things = follow()
    assert things.names() == ["good"]
    (bad,) = things.reflector.malformed
    assert bad.metadata.name == "bad"
    assert "size" in bad.error
    assert "object not understood" in caplog.messages
    api.put(f"{LIST}/bad", size=1)
    eventually(lambda: things.names() == ["bad", "good"])
    assert things.reflector.malformed == ()


def test_a_bad_edit_does_not_look_like_a_deletion(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    """A capture that vanished from the copy would take its spools with it."""
    api.put(f"{LIST}/a", size=1)
    things = follow()
    api.put(f"{LIST}/a", size="many")
    eventually(lambda: things.reflector.malformed != ())
    api.say("ERROR", GONE)  # and a new list keeps it, too
    eventually(lambda: things.reflector.lists == 2)
    kept = things.reflector.get("ns", "a")
    assert kept is not None
    assert kept.size == 1
    assert things.kinds() == [("added", "a")]
    api.delete(f"{LIST}/a")
    eventually(lambda: things.kinds() == [("added", "a"), ("deleted", "a")])
    assert things.reflector.malformed == ()


def test_callback_that_fails_is_logged_and_the_next_one_is_called(
    api: SmallApi, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def fail(change: Change[Thing]) -> None:
        seen.append(change.object.metadata.name)
        raise RuntimeError("no")

    reflector = Reflector(
        api.client(), LIST, msgspec.json.Decoder(Thing).decode, name="things", on_change=fail
    )
    reflector.start()
    assert reflector.wait_synced(5)
    api.put(f"{LIST}/a")
    api.put(f"{LIST}/b")
    eventually(lambda: seen == ["a", "b"])
    reflector.stop()
    failed = [record for record in caplog.records if record.message == "change not handled"]
    assert [record.levelno for record in failed] == [logging.ERROR] * 2


def test_stop_wakes_a_watch_that_waits(follow: Callable[..., Followed]) -> None:
    things = follow()
    began_at = time.monotonic()
    things.reflector.stop()
    assert time.monotonic() - began_at < 1
    assert things.reflector._thread is not None
    assert not things.reflector._thread.is_alive()
    assert things.reflector.failures == 0


def test_line_cut_in_the_middle_is_fetched_again(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    things = follow()
    api.answers["GET", LIST] = [
        (200, b'{"type":"ADDED","object":{"metadata":{"name":"a'),
        (
            200,
            b'{"type":"ADDED","object":{"metadata":{"name":"a","uid":"1","resourceVersion":"7"}}}',
        ),
        (500, b"enough"),
    ]
    api.cut_watches()
    eventually(lambda: things.names() == ["a"])
    assert things.reflector.lists == 1


def test_patience_grows_only_while_nothing_comes(
    api: SmallApi, follow: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real server, the fourth restart within minutes cost 12 s of blindness."""
    things = follow()
    for n in range(12):  # 2**12 times the first delay would be a minute
        api.put(f"{LIST}/p{n}")
        eventually(lambda n=n: len(things.names()) == n + 1)  # type: ignore[misc]
        api.cut_watches()
    api.put(f"{LIST}/last")
    eventually(lambda: "last" in things.names(), seconds=2)


def test_history_that_is_lost_again_and_again_is_not_listed_without_pause(
    api: SmallApi, follow: Callable[..., Followed]
) -> None:
    things = follow()
    page = {"metadata": {"resourceVersion": "200"}, "items": []}
    api.answers["GET", LIST] = [(410, GONE), (200, page)] * 500
    api.cut_watches()
    time.sleep(1)
    deadline = time.monotonic() + 30
    while things.reflector.lists < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 2 <= things.reflector.lists < 10
