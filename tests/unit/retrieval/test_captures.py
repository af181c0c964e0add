import json
import threading
import time

import msgspec
import pytest

from nightcap.contract.captures import BadCapture, PacketCapture, parse_capture
from nightcap.kube.errors import ClusterUnavailable
from retrieval.collector.captures import Captures
from tests.unit.retrieval.builders import CAPTURE, a_capture


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
