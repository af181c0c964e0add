import json
import threading
import time

import msgspec
import pytest

from nightcap.contract.captures import BadCapture, PacketCapture, parse_capture
from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.groups import Standing
from retrieval.collector.captures import BothWatches, Captures, live_list
from tests.unit.retrieval.builders import CALICO, CAPTURE, a_calico_capture, a_capture
from tests.unit.retrieval.fake_api import FakeApi


class NoWatch:
    def by_uid(self, uid: str) -> PacketCapture | None:
        return None

    def items(self) -> tuple[PacketCapture, ...]:
        return ()


def a_list(capture: dict[str, object]) -> dict[str, msgspec.Raw]:
    return {CAPTURE: msgspec.Raw(json.dumps(capture).encode())}


def test_a_crowd_shares_lists_that_began_after_each_of_them_asked() -> None:
    begun: list[float] = []

    def list_namespace(namespace: str) -> dict[str, msgspec.Raw]:
        begun.append(time.monotonic())
        time.sleep(0.05)
        return a_list(a_capture())

    captures = Captures(NoWatch(), list_namespace)
    asked: list[tuple[float, int]] = []

    def ask() -> None:
        at = time.monotonic()
        assert captures.find("storefront", CAPTURE) is not None
        asked.append((at, len(begun)))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    assert len(begun) <= 4
    assert all(begun[count - 1] >= at for at, count in asked)


def test_a_list_that_failed_is_nobodys_answer() -> None:
    answers = [ClusterUnavailable(0, "NoAnswer", "down"), None]

    def list_namespace(namespace: str) -> dict[str, msgspec.Raw]:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return a_list(a_capture())

    captures = Captures(NoWatch(), list_namespace)
    with pytest.raises(ClusterUnavailable):
        captures.find("storefront", CAPTURE)
    assert captures.find("storefront", CAPTURE) is not None


def test_a_capture_that_cannot_be_read_is_not_called_gone() -> None:
    captures = Captures(NoWatch(), lambda _: a_list(a_capture(snapLength="all of it")))
    with pytest.raises(BadCapture):
        captures.find("storefront", CAPTURE)


def test_both_groups_are_listed_when_the_optional_one_is_ours(api: FakeApi) -> None:
    api.captures = [a_capture(), a_calico_capture(), a_capture("x", "ab", namespace="mail")]
    assert set(live_list(api.client)("storefront")) == {CAPTURE}
    ours = live_list(api.client, lambda: Standing.OURS)
    assert set(ours("storefront")) == {CAPTURE, CALICO}
    capture = Captures(NoWatch(), ours).find("storefront", CALICO)
    assert capture is not None
    assert capture.spec.selector == 'app == "web"'
    for standing in (Standing.ABSENT, Standing.AGGREGATED, Standing.NOT_GRANTED):
        assert set(live_list(api.client, lambda s=standing: s)("storefront")) == {CAPTURE}


def test_while_a_group_is_uncertain_nothing_is_called_deleted(api: FakeApi) -> None:
    api.captures = [a_capture()]

    def certain() -> Standing:
        raise ClusterUnavailable(0, "GroupUncertain", "it has just come")

    with pytest.raises(ClusterUnavailable):
        Captures(NoWatch(), live_list(api.client, certain)).find("storefront", CALICO)


def test_two_watches_are_one() -> None:
    class Holds(NoWatch):
        def __init__(self, raw: dict[str, object]) -> None:
            self.capture = parse_capture(json.dumps(raw).encode())

        def by_uid(self, uid: str) -> PacketCapture | None:
            return self.capture if uid == self.capture.metadata.uid else None

        def items(self) -> tuple[PacketCapture, ...]:
            return (self.capture,)

    both = BothWatches(Holds(a_capture()), Holds(a_calico_capture()))
    assert [c.metadata.uid for c in both.items()] == [CAPTURE, CALICO]
    assert both.by_uid(CAPTURE)
    assert both.by_uid(CALICO)
    assert both.by_uid("x") is None


def test_settings_follow_the_objects_version() -> None:
    captures = Captures(NoWatch(), lambda _: {})
    capture = a_capture(snapLength=100)
    first = captures.settings(parse_capture(json.dumps(capture).encode()))
    assert first is not None
    assert first.snap == 100
    capture["spec"]["snapLength"] = 200
    capture["metadata"]["resourceVersion"] = "2"
    second = captures.settings(parse_capture(json.dumps(capture).encode()))
    assert second is not None
    assert second.snap == 200
