"""The loop: whatever has news is looked at again, soon and once."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from controller.actions import Action
from controller.metrics import Metrics
from controller.reconcile import Plan

log = logging.getLogger(__name__)

COALESCE_SECONDS: Final = 0.01
"""Objects that belong together arrive within this time of each other."""
_AFTER_FAILURE_SECONDS: Final = 5.0
_LONGEST_SLEEP_SECONDS: Final = 60.0
_LOOK_FOR_THE_END_SECONDS: Final = 0.5


def _always() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class Loop:
    """Reconciles namespaces that have news or whose time has come.

    Args:
        decide: What has to be done in a namespace; asked with the time in seconds since the
            epoch.
        submit: Begins an action; may answer with when to decide anew.
        metrics: Counters.
        clock: Seconds since the epoch.
        tidy: Called about once a minute.
        leading: Set while this replica may act; the others keep their news for the day they
            lead.
    """

    def __init__(
        self,
        decide: Callable[[str, float], Plan],
        submit: Callable[[Action], float | None],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        tidy: Callable[[], None] = lambda: None,
        leading: threading.Event | None = None,
    ) -> None:
        self._decide = decide
        self._submit = submit
        self._metrics = metrics
        self._clock = clock
        self._tidy = tidy
        self._leading = leading if leading is not None else _always()
        self._tidied_at = clock()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._dirty: set[str] = set()
        self._wakes: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread is None or self._thread.is_alive()

    def mark(self, namespace: str) -> None:
        """Say that a namespace has news."""
        with self._lock:
            self._dirty.add(namespace)
        self._news.set()

    def mark_later(self, namespace: str, seconds: float) -> None:
        """Say that a namespace is to be looked at again in a while."""
        if seconds <= 0:
            self.mark(namespace)
            return
        with self._lock:
            self._wake(namespace, self._clock() + seconds)
        self._news.set()

    def start(self) -> None:
        """Begin, in a thread of its own; only when every watch has synced.

        To decide on half of the captures would take the other half from the orders.
        """
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._leading.wait(_LOOK_FOR_THE_END_SECONDS):
                continue
            if self._news.wait(self._seconds_to_sleep()):
                time.sleep(COALESCE_SECONDS)
            self._news.clear()
            if self._clock() - self._tidied_at > _LONGEST_SLEEP_SECONDS:
                self._tidied_at = self._clock()
                self._tidy()
            for namespace in self._take_due():
                if self._stopping.is_set():
                    return
                self._reconcile(namespace)

    def _seconds_to_sleep(self) -> float:
        with self._lock:
            due_at = min(self._wakes.values(), default=math.inf)
            if self._dirty:
                return 0.0
        # Never longer than a minute: the wall clock may be set while we sleep.
        return max(0.0, min(due_at - self._clock(), _LONGEST_SLEEP_SECONDS))

    def _take_due(self) -> list[str]:
        with self._lock:
            now = self._clock()
            due = self._dirty | {name for name, at in self._wakes.items() if at <= now}
            self._dirty = set()
            for name in due:
                self._wakes.pop(name, None)
            self._metrics.waiting.set(len(due))
        return sorted(due)

    def _reconcile(self, namespace: str) -> None:
        try:
            with self._metrics.reconcile_seconds.time():
                plan = self._decide(namespace, self._clock())
            wakes = [plan.wake_at]
            for action in plan.actions:
                again_at = self._submit(action)
                if again_at is not None:
                    wakes.append(again_at)
            wake_at = min(wakes)
        except Exception:
            # One namespace that we fail to understand must not stop the others.
            log.exception("reconcile failed", extra={"namespace": namespace})
            self._metrics.reconciles_failed.inc()
            wake_at = self._clock() + _AFTER_FAILURE_SECONDS
        with self._lock:
            self._wake(namespace, wake_at)
        self._metrics.waiting.dec()

    def _wake(self, namespace: str, at: float) -> None:
        if at < self._wakes.get(namespace, math.inf):
            self._wakes[namespace] = at
