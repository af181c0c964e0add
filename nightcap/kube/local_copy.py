"""What a reflector holds: objects by name and uid, and what changes when others come.

Knows nothing of requests; `nightcap.kube.reflector` fills it from an API server.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from nightcap.contract.objects import ObjectMeta


class HasMetadata(Protocol):
    """Anything with Kubernetes metadata."""

    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=HasMetadata)
"""What is held."""

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-wide object is empty."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One difference between the copy before and after.

    Attributes:
        kind: What happened.
        object: The object now; of a deleted one the last state known.
        old: The object before; None if it is new.
    """

    kind: Literal["added", "modified", "deleted"]
    object: T
    old: T | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An object that did not decode.

    Attributes:
        metadata: Which one.
        error: Why not.
    """

    metadata: ObjectMeta
    error: str


class LocalCopy(Generic[T]):
    """The objects of one list; every method may be called from any thread.

    Of an object that does not decode, the last good state stays among the items: a bad edit must
    not look like a deletion. One that never was good is not among them. One thread writes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[Key, T] = {}
        self._by_uid: dict[str, T] = {}
        self._malformed: dict[Key, Malformed] = {}

    def items(self) -> tuple[T, ...]:
        """Every object, as of now."""
        with self._lock:
            return tuple(self._objects.values())

    def get(self, namespace: str, name: str) -> T | None:
        """One object by its name."""
        with self._lock:
            return self._objects.get((namespace, name))

    def by_uid(self, uid: str) -> T | None:
        """One object by its uid."""
        with self._lock:
            return self._by_uid.get(uid)

    def malformed(self) -> tuple[Malformed, ...]:
        """Every object that did not decode."""
        with self._lock:
            return tuple(self._malformed.values())

    def replace(self, items: Iterable[T], malformed: Iterable[Malformed]) -> list[Change[T]]:
        """Hold what a complete list has brought; deletions come first."""
        found = {key_of(item): item for item in items}
        misfits = {key_of(misfit): misfit for misfit in malformed}
        with self._lock:
            old = self._objects
            found |= {key: old[key] for key, misfit in misfits.items() if _is_same(old, misfit)}
            self._objects = found
            self._by_uid = {item.metadata.uid: item for item in found.values()}
            self._malformed = misfits
        gone = [Change("deleted", item, item) for key, item in old.items() if key not in found]
        changed = [change for key, item in found.items() for change in _changes(old.get(key), item)]
        return gone + changed

    def put(self, item: T) -> tuple[Change[T], ...]:
        """Hold a new object, or a new state of one."""
        key = key_of(item)
        with self._lock:
            old = self._objects.get(key)
            self._objects[key] = item
            if old is not None:
                self._by_uid.pop(old.metadata.uid, None)
            self._by_uid[item.metadata.uid] = item
            self._malformed.pop(key, None)
        return _changes(old, item)

    def put_malformed(self, misfit: Malformed) -> tuple[Change[T], ...]:
        """Note a state that did not decode; what had that name and was another object is gone."""
        changes = () if _is_same(self._objects, misfit) else self.remove(misfit, None)
        with self._lock:
            self._malformed[key_of(misfit)] = misfit
        return changes

    def remove(self, head: HasMetadata, last: T | None) -> tuple[Change[T], ...]:
        """Forget an object.

        Args:
            head: Which one.
            last: Its last state, if that is known.
        """
        key = key_of(head)
        with self._lock:
            old = self._objects.pop(key, None)
            if old is not None:
                self._by_uid.pop(old.metadata.uid, None)
            self._malformed.pop(key, None)
        return () if old is None else (Change("deleted", last or old, old),)


def key_of(item: HasMetadata) -> Key:
    """What an object is called."""
    return item.metadata.namespace, item.metadata.name


def _is_same(objects: Mapping[Key, T], misfit: Malformed) -> bool:
    """Whether it is an object that is held, of which a state did not decode."""
    held = objects.get(key_of(misfit))
    return held is not None and held.metadata.uid == misfit.metadata.uid


def _changes(old: T | None, new: T) -> tuple[Change[T], ...]:
    """What happened to one name: another uid means that it was deleted and made again."""
    if old is None:
        return (Change("added", new),)
    if old.metadata.uid != new.metadata.uid:
        return (Change("deleted", old, old), Change("added", new))
    if old.metadata.resource_version == new.metadata.resource_version:
        return ()
    return (Change("modified", new, old),)
