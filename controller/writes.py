"""Writes that wait for a worker: one for each object, and which of them is next."""

import heapq
from itertools import count

from controller.actions import Action, PatchOrders, UpdateStatus, name_of, namespace_of

Key = tuple[str, ...]
"""What is written: two writes of one key are never under way at once."""


def key_of(action: Action) -> Key:
    """What an action writes to."""
    match action:
        case PatchOrders():
            return "orders", action.pod.uid
        case UpdateStatus():
            return "status", action.capture.uid
        case _:
            return "capture", namespace_of(action), name_of(action)


class WaitingWrites:
    """Orders that somebody waits for come first, all else in the order of its arrival.

    A start with ten thousand pods leaves a minute of orders and statuses to write, and so do new
    addresses of the collector; a capture that is created meanwhile does not wait for them. What
    is decided anew about an object takes the place of what waited for it. For one thread at a time.
    """

    def __init__(self) -> None:
        self._places: dict[Key, tuple[bool, int]] = {}
        self._actions: dict[Key, Action] = {}
        self._heap: list[tuple[bool, int, Key]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._actions)

    def __contains__(self, key: Key) -> bool:
        return key in self._actions

    def put(self, key: Key, action: Action) -> bool:
        """Let an action wait; whether one more call of `take` is needed for that."""
        self._actions[key] = action
        can_wait = not isinstance(action, PatchOrders) or action.is_backlog
        place = self._places.get(key)
        if place is not None and place[0] <= can_wait:
            return False
        self._places[key] = (can_wait, next(self._numbers))
        heapq.heappush(self._heap, (*self._places[key], key))
        return True

    def take(self) -> tuple[Key, Action] | None:
        """The next one; None for one that was moved ahead and taken before."""
        can_wait, number, key = heapq.heappop(self._heap)
        if self._places.get(key) != (can_wait, number):
            return None
        del self._places[key]
        return key, self._actions.pop(key)
