from controller.actions import PatchOrders, Ref, UpdateStatus
from controller.writes import WaitingWrites, key_of


def orders(name: str, value: str = "a", *, backlog: bool = False) -> PatchOrders:
    return PatchOrders(Ref("Pod", "shop", name, f"uid-{name}"), value, is_backlog=backlog)


def status(name: str) -> UpdateStatus:
    return UpdateStatus(Ref("PacketCapture", "shop", name, f"uid-{name}"), {})


def put(waiting: WaitingWrites, *actions: PatchOrders | UpdateStatus) -> int:
    """How many calls of `take` are needed."""
    return sum(waiting.put(key_of(action), action) for action in actions)


def taken(waiting: WaitingWrites, calls: int) -> list[object]:
    found = [waiting.take() for _ in range(calls)]
    assert len(waiting) == 0
    return [each[1] for each in found if each is not None]


def test_orders_of_news_come_before_the_backlog_of_a_start_and_statuses():
    waiting = WaitingWrites()
    old = [orders(f"old-{number}", backlog=True) for number in range(3)]
    calls = put(waiting, *old[:2], status("dns"), old[2], orders("web-1"), orders("web-2"))
    assert calls == 6
    assert taken(waiting, calls) == [
        orders("web-1"), orders("web-2"), *old[:2], status("dns"), old[2]
    ]  # fmt: skip


def test_what_is_decided_anew_takes_the_place_of_what_waits():
    waiting = WaitingWrites()
    calls = put(waiting, orders("web-1", "a"), orders("web-2"), orders("web-1", "b"))
    assert calls == 2
    assert taken(waiting, calls) == [orders("web-1", "b"), orders("web-2")]


def test_a_backlog_that_somebody_asks_for_comes_forward_once():
    waiting = WaitingWrites()
    backlog = [orders(name, backlog=True) for name in ("web-1", "web-2")]
    calls = put(waiting, *backlog, orders("web-2", "b"), orders("web-2", "c"))
    assert calls == 3
    assert taken(waiting, calls) == [orders("web-2", "c"), orders("web-1")]


def test_orders_of_news_stay_ahead_when_all_pods_are_looked_at_again():
    waiting = WaitingWrites()
    calls = put(waiting, orders("web-1", backlog=True), orders("web-2"))
    calls += put(waiting, orders("web-2", "b", backlog=True))
    assert taken(waiting, calls) == [orders("web-2", "b"), orders("web-1")]
