"""Events for people: what a program did with an object, told once and never in the way."""

import logging
import queue
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError

log = logging.getLogger(__name__)

_MAX_NOTE = 1024
_MAX_WORD = 128
_MAX_NAME = 200
_MAX_QUEUED = 256
_MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """The object that an event is about.

    An event lies in the object's namespace; for a Namespace give its own name as
    `namespace`, so that those who may read the namespace read it.
    """

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class _Event:
    regarding: ObjectRef
    kind: str
    reason: str
    message: str
    action: str
    at: float


class EventRecorder:
    """Writes `events.k8s.io/v1` from a thread of its own; `record` neither waits nor raises.

    The same (object, reason, message) is told again only after `repeat_seconds`; more than
    `burst` at once, or `per_second` over time, are dropped and counted.
    """

    def __init__(
        self,
        client: KubeClient,
        component: str,
        *,
        repeat_seconds: float = 600,
        per_second: float = 5,
        burst: int = 50,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._component = f"nightcap.dev/{component}"[:_MAX_WORD]
        self._instance = f"{component}-{socket.gethostname()}"[:_MAX_WORD]
        self._repeat_seconds = repeat_seconds
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._tokens = float(burst)
        self._refilled_at = clock()
        self._queue: queue.Queue[_Event] = queue.Queue(_MAX_QUEUED)
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Events that were not written: too many, or refused by the API server."""

    def record(
        self,
        regarding: ObjectRef,
        *,
        type: Literal["Normal", "Warning"],  # noqa: A002 - Kubernetes' own word
        reason: str,
        message: str,
        action: str,
    ) -> None:
        """Tell people what happened to an object.

        Args:
            regarding: The object.
            type: `Normal` or `Warning`.
            reason: One CamelCase word a program can match.
            message: A sentence a person can act on.
            action: One CamelCase word for what was done or tried.
        """
        now = self._clock()
        key = (regarding.uid or f"{regarding.namespace}/{regarding.name}", reason, message)
        with self._lock:
            if now - self._told.get(key, float("-inf")) < self._repeat_seconds:
                return
            if not self._take_token(now):
                self.dropped += 1
                return
            self._told[key] = now
            self._told.move_to_end(key)
            while len(self._told) > _MAX_REMEMBERED:
                self._told.popitem(last=False)
            event = _Event(regarding, type, reason, message, action, now)
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                self.dropped += 1
                return
            if self._thread is None or not self._thread.is_alive():
                # Started late, so that a recorder made before a fork works after it.
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()

    def warn_namespace(self, name: str, reason: str, message: str, *, action: str) -> None:
        """Record a Warning on a namespace, where those who may read it look."""
        self.record(
            ObjectRef("v1", "Namespace", name, name),
            type="Warning",
            reason=reason,
            message=message,
            action=action,
        )

    def flush(self, timeout: float = 5) -> bool:
        """Wait until what was recorded is written; whether it was."""
        deadline = time.monotonic() + timeout
        while self._queue.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._queue.unfinished_tasks

    def _take_token(self, now: float) -> bool:
        gained = max(0.0, now - self._refilled_at) * self._per_second
        self._tokens = min(float(self._burst), self._tokens + gained)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _run(self) -> None:
        while True:
            event = self._queue.get()
            try:
                self._write(event)
            except ApiError as error:
                self.dropped += 1
                log.warning(
                    "event not written", extra={"reason": event.reason, "error": str(error)}
                )
            except Exception:
                self.dropped += 1
                log.exception("event not written", extra={"reason": event.reason})
            finally:
                self._queue.task_done()

    def _write(self, event: _Event) -> None:
        namespace = event.regarding.namespace or "default"
        body = self._object_of(event, namespace)
        self._client.request("POST", paths.events(namespace), body=body, timeout=(3, 10))

    def _object_of(self, event: _Event, namespace: str) -> dict[str, Any]:
        at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="microseconds")
        regarding = {
            "apiVersion": event.regarding.api_version,
            "kind": event.regarding.kind,
            "name": event.regarding.name,
            "namespace": namespace,
            "uid": event.regarding.uid,
            "resourceVersion": event.regarding.resource_version,
        }
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{event.regarding.name[:_MAX_NAME]}.{secrets.token_hex(8)}",
                "namespace": namespace,
            },
            "eventTime": at.replace("+00:00", "Z"),
            "reportingController": self._component,
            "reportingInstance": self._instance,
            "action": event.action[:_MAX_WORD],
            "reason": event.reason[:_MAX_WORD],
            "type": event.kind,
            "regarding": {key: value for key, value in regarding.items() if value},
            "note": _cut(event.message),
        }


def _cut(message: str) -> str:
    # The server counts bytes, not characters.
    data = message.encode()
    if len(data) <= _MAX_NOTE:
        return message
    return data[: _MAX_NOTE - 3].decode(errors="ignore") + "…"
