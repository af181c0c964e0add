"""Performs actions through the API server, several at once, and never waits for one.

A conflict or an object that is gone is no error: the watch brings the truth and the next
round decides anew. Anything else that fails is logged, counted and tried again.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from controller.actions import (
    Action,
    CreateCapture,
    PatchOrders,
    RecordEvent,
    Ref,
    UpdateCapture,
    UpdateStatus,
    name_of,
    namespace_of,
    version_of,
)
from controller.metrics import Metrics
from controller.performing import Performer, facts_of
from controller.telling import told_by
from controller.view import Memory, Refusal
from controller.writes import Key, WaitingWrites, key_of
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
)
from nightcap.kube.events import EventRecorder, ObjectRef

log = logging.getLogger(__name__)

WORKERS: Final = 8
REFUSAL_SECONDS: Final = 300.0
"""How long until an annotation capture that was refused is tried again unchanged."""
REPEAT_SECONDS: Final = 5.0
"""How long a write that succeeded is trusted to come back by the watch."""
_FIRST_RETRY_SECONDS: Final = 0.5
_MAX_RETRY_SECONDS: Final = 30.0
_MAX_REMEMBERED: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Done:
    """A write that succeeded: the copy that was decided on, what was written, and when."""

    resource_version: str
    wrote: int
    at: float


class _NotLeading(Exception):
    """Another replica may be writing."""


class Applier:
    """Performs actions.

    Args:
        client: The API server.
        recorder: Events on captures, and on what annotations are on.
        pod_recorder: Events on pods that are ordered; many of them must not use up what the
            others may say.
        memory: Where refusals and the pace of writes are remembered.
        metrics: Counters.
        on_done: Called with an action whose object has to be looked at again, and in how
            many seconds.
        clock: Seconds since the epoch.
        may_write: Asked at the last moment before each write: the leader may have changed
            since it was decided, or this process may have been paused.
    """

    def __init__(
        self,
        client: KubeClient,
        recorder: EventRecorder,
        pod_recorder: EventRecorder,
        memory: Memory,
        metrics: Metrics,
        on_done: Callable[[Action, float], None],
        clock: Callable[[], float] = time.time,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._recorder = recorder
        self._pod_recorder = pod_recorder
        self._memory = memory
        self._metrics = metrics
        self._on_done = on_done
        self._clock = clock
        self._may_write = may_write
        self._performer = Performer(client, memory, metrics, clock)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="apply")
        self._lock = threading.Lock()
        self._waiting = WaitingWrites()
        # Under way -> whether it was decided on anew meanwhile.
        self._in_flight: dict[Key, bool] = {}
        self._done: dict[Key, _Done] = {}
        self._failures = 0

    @property
    def is_busy(self) -> bool:
        """Whether any write waits or is under way."""
        with self._lock:
            return bool(self._in_flight or self._waiting)

    @property
    def waiting(self) -> int:
        """Writes that wait for a worker."""
        with self._lock:
            return len(self._waiting)

    def submit(self, action: Action) -> float | None:
        """Begin an action.

        Returns:
            None; or when to decide anew, for a write that was just done and has not come
            back by the watch yet.
        """
        if isinstance(action, RecordEvent):
            if self._may_write():
                if len(self._memory.told) >= _MAX_REMEMBERED:
                    self._memory.told.clear()
                self._memory.told.add((action.regarding.uid, action.reason, action.message))
                record(self._recorder, action)
            return None
        key = key_of(action)
        with self._lock:
            if key in self._in_flight:
                self._in_flight[key] = True  # decided on what is being changed: look again after
                return None
            done = self._done.get(key)
            now = self._clock()
            if (
                key not in self._waiting
                and done is not None
                and (done.resource_version, done.wrote) == (version_of(action), _written(action))
                and abs(now - done.at) < REPEAT_SECONDS
            ):
                return done.at + REPEAT_SECONDS
            is_another = self._waiting.put(key, action)
        if is_another:
            self._pool.submit(self._run_next)
        return None

    def stop(self) -> None:
        """Finish what has begun; what waits is decided anew by whoever leads next."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run_next(self) -> None:
        with self._lock:
            taken = self._waiting.take()
            if taken is None:
                return
            key, action = taken
            self._in_flight[key] = False
        self._run(action, key)

    def _run(self, action: Action, key: Key) -> None:
        retry_in: float | None = None
        succeeded = False
        try:
            if not self._may_write():
                raise _NotLeading  # noqa: TRY301 - what follows is the same for all failures
            self._performer.perform(action)
            succeeded = True
            self._failures = 0
            recorder = self._pod_recorder if isinstance(action, PatchOrders) else self._recorder
            for event in told_by(action, self._memory):
                record(recorder, event)
        except _NotLeading:
            retry_in = 1.0
            log.info("not written, another leads", extra=facts_of(action))
        except (NotFound, Conflict) as error:
            # A create that finds no namespace or no CRD would otherwise not be tried again.
            retry_in = 5.0 if isinstance(action, CreateCapture) else 1.0
            log.info("decided on an old copy", extra={**facts_of(action), "said": str(error)})
        except TooManyRequests as error:
            # Its priority and fairness decides who is served next, and when.
            asked = error.retry_after_seconds or _FIRST_RETRY_SECONDS
            retry_in = asked * random.uniform(1.0, 1.5)  # noqa: S311 - not all at once again
            self._metrics.actions_put_off.inc()
        except (Forbidden, Invalid, BadRequest) as error:
            retry_in = self._refused(action, error)
        except ApiError as error:
            retry_in = self._failed(action, error)
        except Exception as error:
            log.exception("action failed", extra=facts_of(action))
            retry_in = self._failed(action, error)
        with self._lock:
            if succeeded:
                self._remember(key, _Done(version_of(action), _written(action), self._clock()))
            else:
                self._done.pop(key, None)
            asked_again = self._in_flight.pop(key, False)
            # Under the lock: whoever sees that nothing is under way has been told all.
            if retry_in is not None:
                self._on_done(action, retry_in)
            elif asked_again:
                self._on_done(action, 0.0)

    def _remember(self, key: Key, done: _Done) -> None:
        if len(self._done) >= _MAX_REMEMBERED:
            now = self._clock()
            self._done = {
                key: old for key, old in self._done.items() if abs(now - old.at) < REPEAT_SECONDS
            }
        self._done[key] = done

    def _refused(self, action: Action, error: ApiError) -> float:
        """A refusal of an annotation's capture is its author's to mend; others are ours."""
        is_ours = isinstance(error, Forbidden) and error.lacks_right
        if is_ours or not isinstance(action, CreateCapture | UpdateCapture) or not action.subjects:
            return self._failed(action, error)
        namespace, name = namespace_of(action), name_of(action)
        self._memory.refusals[namespace, name] = Refusal(
            action.fingerprint, error.message, self._clock() + REFUSAL_SECONDS
        )
        log.info("annotation capture refused", extra={**facts_of(action), "said": error.message})
        return 0.0

    def _failed(self, action: Action, error: Exception) -> float:
        self._metrics.actions_failed.labels(type(action).__name__).inc()
        log.warning("action failed", extra={**facts_of(action), "error": str(error)})
        self._failures = min(self._failures + 1, 10)
        return min(_FIRST_RETRY_SECONDS * 2.0**self._failures, _MAX_RETRY_SECONDS)


def record(recorder: EventRecorder, event: RecordEvent) -> None:
    """Let people read an Event; neither waits nor raises."""
    kind: Literal["Normal", "Warning"] = "Normal" if event.type == "Normal" else "Warning"
    recorder.record(
        _object_ref(event.regarding),
        type=kind,
        reason=event.reason,
        message=event.message,
        action=event.action,
    )


def _object_ref(ref: Ref) -> ObjectRef:
    return ObjectRef(
        api_version=ref.api_version,
        kind=ref.kind,
        name=ref.name,
        namespace=ref.namespace or ref.name,
        uid=ref.uid,
        resource_version=ref.resource_version,
    )


def _written(action: Action) -> int:
    """The hash of what an action writes: a status is large, and remembered for a while."""
    match action:
        case PatchOrders(value=value):
            return hash(value)
        case UpdateStatus(status=status):
            return hash(repr(status))
        case CreateCapture(fingerprint=fingerprint) | UpdateCapture(fingerprint=fingerprint):
            return hash((type(action).__name__, fingerprint))
        case _:
            return hash(type(action).__name__)
