"""Follows a list of objects of the API server, and says what changed.

One thread lists in pages, then watches from where the list ended, for months. Everything
that can end a watch (its own time, a broken connection, a restarted server, a compacted
history) ends in the same loop: watch again from the last version, or list again and
compare. Nobody who reads the copy waits for the network.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Generic

import msgspec

from nightcap.contract.objects import ObjectMeta
from nightcap.kube.client import KubeClient, LineStream
from nightcap.kube.errors import ApiError, ClusterUnavailable, Gone, error_of
from nightcap.kube.local_copy import Change, HasMetadata, LocalCopy, Malformed, T, key_of

log = logging.getLogger(__name__)

_PAGE = 500
_WATCH_SECONDS = (240, 360)
_SILENCE_SECONDS = 120
"""How long a watch may be silent before it counts as dead; bookmarks come every minute."""
_GOOD_WATCH_SECONDS = 5.0
"""A watch that ends sooner, and without an event, is a failure however it ended."""
_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 30.0


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Head(msgspec.Struct, frozen=True):
    """The least that every object has, for those that do not decode."""

    metadata: ObjectMeta = ObjectMeta()


_PAGE_DECODER = msgspec.json.Decoder(_Page)
_EVENT_DECODER = msgspec.json.Decoder(_Event)
_HEAD_DECODER = msgspec.json.Decoder(_Head)


class Reflector(Generic[T]):
    """Follows one list; see the module. Every method may be called from any thread."""

    def __init__(
        self,
        client: KubeClient,
        path: str,
        decode: Callable[[msgspec.Raw], T],
        *,
        name: str,
        label_selector: str = "",
        field_selector: str = "",
        on_change: Callable[[Change[T]], None] | None = None,
        page_size: int = _PAGE,
    ) -> None:
        """Prepare; nothing is asked before `start`.

        Args:
            client: The API server.
            path: Of the list.
            decode: Turns one object's JSON into what is kept.
            name: For logs and metrics.
            label_selector: Which objects, by label.
            field_selector: Which objects, by field, such as `metadata.name=nightcap`.
            on_change: Called in the reflector's thread after the copy has changed; an
                exception is logged, and the reflector goes on.
            page_size: Objects in one page of a list.
        """
        self.name = name
        self._client = client
        self._path = path
        self._decode = decode
        self._selectors = {
            key: value
            for key, value in (("labelSelector", label_selector), ("fieldSelector", field_selector))
            if value
        }
        self._on_change = on_change
        self._page_size = page_size
        self._copy: LocalCopy[T] = LocalCopy()
        self._lock = threading.Lock()
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._stream: LineStream | None = None
        self._thread: threading.Thread | None = None
        self._version = ""
        self.lists = 0
        """Complete lists so far; more than one means that a watch's history was lost."""
        self.watches = 0
        """Watches begun so far."""
        self.events = 0
        """Events applied so far, bookmarks included."""
        self.failures = 0
        """Requests that failed, and watches that broke."""
        self.last_heard_at = 0.0
        """Monotonic time of the last answer or event from the server."""

    def start(self) -> None:
        """Begin to follow, in a thread of its own; once."""
        if self._thread is not None:
            raise RuntimeError(f"reflector {self.name} was started already")
        self._thread = threading.Thread(target=self._run, name=f"watch-{self.name}", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5) -> None:
        """End the thread; a watch that waits for the server is woken."""
        self._stopping.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.abort()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def wait_synced(self, timeout: float) -> bool:
        """Wait for the first complete list; whether it came within `timeout` seconds."""
        return self._synced.wait(timeout)

    @property
    def synced(self) -> bool:
        """Whether the first complete list has come."""
        return self._synced.is_set()

    def items(self) -> tuple[T, ...]:
        """Every object, as of now."""
        return self._copy.items()

    def get(self, namespace: str, name: str) -> T | None:
        """One object; the namespace of a cluster-wide one is empty."""
        return self._copy.get(namespace, name)

    def by_uid(self, uid: str) -> T | None:
        """One object by its uid."""
        return self._copy.by_uid(uid)

    @property
    def malformed(self) -> tuple[Malformed, ...]:
        """Objects that did not decode, with the reason; see `nightcap.kube.local_copy`."""
        return self._copy.malformed()

    def _run(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        must_list = True
        while not self._stopping.is_set():
            began_at, events_before = time.monotonic(), self.events
            asked = 0.0
            try:
                if must_list:
                    self._list()
                    must_list = False
                self._watch()
                failed = time.monotonic() - began_at < _GOOD_WATCH_SECONDS
            except Gone as error:
                must_list, failed = True, True
                log.info("watch history lost", extra={"watch": self.name, "said": str(error)})
            except ApiError as error:
                failed, asked = True, error.retry_after_seconds or 0.0
                self._log_failure(error)
            except Exception:
                # Whatever it was, a copy that silently stands still is worse than a new list.
                must_list, failed = True, True
                self.failures += 1
                log.exception("watch failed", extra={"watch": self.name})
            lived = time.monotonic() - began_at > _GOOD_WATCH_SECONDS
            if lived or self.events > events_before:
                # What broke had worked: this is the first failure of a new kind.
                delay = _FIRST_DELAY_SECONDS
            if failed:
                pause = max(delay, asked) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
                self._stopping.wait(max(pause, asked))
                delay = min(delay * 2, _MAX_DELAY_SECONDS)

    def _log_failure(self, error: ApiError) -> None:
        if self._stopping.is_set():
            return  # `stop` shut the socket
        self.failures += 1
        log.warning("watch failed", extra={"watch": self.name, "error": str(error)})

    def _list(self) -> None:
        """List everything in pages, then replace the copy and tell the differences."""
        found: list[T] = []
        misfits: list[Malformed] = []
        query = {**self._selectors, "limit": str(self._page_size)}
        while True:
            data = self._client.request("GET", self._path, query=query, timeout=(5, 60))
            self.last_heard_at = time.monotonic()
            page = _PAGE_DECODER.decode(data)
            for raw in page.items or ():
                item = self._read(raw)
                if isinstance(item, Malformed):
                    misfits.append(item)
                else:
                    found.append(item)
            if not page.metadata.next_page:
                break
            if self._stopping.is_set():
                return
            query["continue"] = page.metadata.next_page
        changes = self._copy.replace(found, misfits)
        self._version = page.metadata.resource_version
        self.lists += 1
        for change in changes:
            self._tell(change)
        for misfit in misfits:
            self._log_malformed(misfit)
        if not self._synced.is_set():
            log.info("watch synced", extra={"watch": self.name, "objects": len(found)})
        self._synced.set()

    def _read(self, raw: msgspec.Raw) -> T | Malformed:
        try:
            return self._decode(raw)
        except (msgspec.MsgspecError, ValueError) as error:
            return Malformed(_HEAD_DECODER.decode(raw).metadata, str(error))

    def _watch(self) -> None:
        """Apply events until the server ends the watch."""
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - spreads the reconnects
        query = {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        stream = self._client.stream_lines(self._path, query, _SILENCE_SECONDS)
        self.watches += 1
        self.last_heard_at = time.monotonic()
        try:
            with stream:
                with self._lock:
                    self._stream = stream
                if self._stopping.is_set():
                    return  # `stop` may have come too early to see the stream
                for line in stream:
                    if self._stopping.is_set():
                        return
                    self.last_heard_at = time.monotonic()
                    self._apply(_decode_event(line))
                    self.events += 1
        finally:
            with self._lock:
                self._stream = None

    def _apply(self, event: _Event) -> None:
        if event.type == "ERROR":
            raise error_of(0, event.object)
        if event.type == "BOOKMARK":
            self._version = _HEAD_DECODER.decode(event.object).metadata.resource_version
            return
        item = self._read(event.object)
        if event.type == "DELETED":
            last = None if isinstance(item, Malformed) else item
            for change in self._copy.remove(item, last):
                self._tell(change)
        elif isinstance(item, Malformed):
            for change in self._copy.put_malformed(item):
                self._tell(change)
            self._log_malformed(item)
        else:
            for change in self._copy.put(item):
                self._tell(change)
        # Last: a callback that fails for good must not lose the event on the next watch.
        self._version = item.metadata.resource_version

    def _tell(self, change: Change[T]) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(change)
        except Exception:
            key = "/".join(key_of(change.object))
            log.exception("change not handled", extra={"watch": self.name, "object": key})

    def _log_malformed(self, misfit: Malformed) -> None:
        key = "/".join(key_of(misfit))
        log.warning(
            "object not understood",
            extra={"watch": self.name, "object": key, "error": misfit.error},
        )


def _decode_event(line: bytes) -> _Event:
    try:
        return _EVENT_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A connection cut in the middle of a line; the next watch brings it whole.
        raise ClusterUnavailable(0, "BadEvent", f"a watch event is no JSON: {error}") from error


__all__ = ["Change", "HasMetadata", "Malformed", "Reflector", "T"]
