"""Captures as the collector sees them: from the watch when it knows them, else live.

Captures of both groups, if the optional one is there. That a capture is gone is never
concluded from the watch, only from lists that were asked for after the question came up.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from nightcap.contract import keys
from nightcap.contract.captures import BadCapture, PacketCapture, Settings, parse_capture, resolve
from nightcap.contract.ceilings import Ceiling, beyond_number, under_ceiling
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.groups import Standing

_OVER: Final = frozenset({"Finished", "Error"})


class Watch(Protocol):
    """The part of a Reflector that is used here."""

    def by_uid(self, uid: str) -> PacketCapture | None: ...

    def items(self) -> tuple[PacketCapture, ...]: ...


@dataclass(frozen=True, slots=True)
class BothWatches:
    """The watches of both groups as one."""

    ours: Watch
    calico: Watch

    def by_uid(self, uid: str) -> PacketCapture | None:
        return self.ours.by_uid(uid) or self.calico.by_uid(uid)

    def items(self) -> tuple[PacketCapture, ...]:
        return (*self.ours.items(), *self.calico.items())


class _Meta(msgspec.Struct, frozen=True):
    uid: str = ""


class _Head(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


class _List(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...] = ()


@dataclass(slots=True)
class _Look:
    """The list of one namespace's captures, shared by all who wait for one."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: int = 0
    answer: dict[str, msgspec.Raw] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one version of a capture comes to under one ceiling.

    Attributes:
        settings: None if the spec cannot be understood.
        beyond: What it asks for beyond the ceiling; each begins with the rule's name.
    """

    version: str
    ceiling: Ceiling | None
    settings: Settings | None
    beyond: tuple[str, ...] = ()


class Captures:
    """Finds captures by uid."""

    def __init__(
        self,
        watch: Watch,
        list_namespace: Callable[[str], dict[str, msgspec.Raw]],
        ceiling: Callable[[str], Ceiling | None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            watch: The captures as far as they are known.
            list_namespace: Asks the API server; see `live_list`.
            ceiling: What holds in a namespace; see `retrieval.collector.ceilings`.
        """
        self._watch = watch
        self._list = list_namespace
        self._ceiling = ceiling
        self._looks: dict[str, _Look] = {}
        self._judged: dict[str, _Judged] = {}
        self._lock = threading.Lock()

    def find(self, namespace: str, uid: str) -> PacketCapture | None:
        """A capture of a namespace; None if there is none, after a live look.

        Raises:
            ApiError: the API server cannot be asked.
            BadCapture: the object is there and cannot be read.
        """
        known = self._watch.by_uid(uid)
        if known is not None and known.metadata.namespace == namespace:
            return known
        raw = self.live(namespace).get(uid)
        return None if raw is None else parse_capture(raw)

    def live(self, namespace: str) -> dict[str, msgspec.Raw]:
        """All captures of a namespace by uid, as of now.

        Callers who come while a list is under way share the next one, so that a crowd of
        sidecars costs the API server two requests.

        Raises:
            ApiError: the API server cannot be asked.
        """
        with self._lock:
            look = self._looks.setdefault(namespace, _Look())
            seen = look.begun
        with look.lock:
            if look.begun <= seen:
                look.begun += 1
                begun = look.begun
                try:
                    look.answer = self._list(namespace)
                except BaseException:
                    look.begun = begun - 1  # whoever waits asks again
                    raise
            return look.answer

    def watched_uids(self) -> frozenset[str]:
        return frozenset(capture.metadata.uid for capture in self._watch.items())

    def is_finished(self, uid: str) -> bool:
        """Whether the watch has the capture, and it records no more."""
        known = self._watch.by_uid(uid)
        return known is not None and (known.status or {}).get("phase") in _OVER

    def settings(self, capture: PacketCapture) -> Settings | None:
        """A capture's spec with all defaults, lowered to its ceiling.

        Returns:
            None if it cannot be understood.
        """
        return self._judge(capture).settings

    def breaks_rules(self, capture: PacketCapture) -> bool:
        """Whether what it asks for is beyond its namespace's ceiling."""
        return bool(self._judge(capture).beyond)

    def beyond(self, capture: PacketCapture, now: float) -> str:
        """Why its namespace's ceiling forbids a capture; empty if it does not.

        The controller orders no pod to record such a capture: whoever ships for it all the
        same goes by orders of somebody else.

        Args:
            capture: The capture.
            now: Seconds since the epoch.
        """
        judged = self._judge(capture)
        if judged.beyond or judged.ceiling is None:
            return "; ".join(judged.beyond)
        metadata = capture.metadata
        others = {
            other.metadata.uid: other
            for other in self._watch.items()
            if other.metadata.namespace == metadata.namespace
        }
        counted = [
            (other, known.settings)
            for other in (others | {metadata.uid: capture}).values()
            if (known := self._judge(other)).settings is not None and not known.beyond
        ]
        return beyond_number(counted, judged.ceiling, now).get(metadata.uid, "")

    def _judge(self, capture: PacketCapture) -> _Judged:
        uid, version = capture.metadata.uid, capture.metadata.resource_version
        ceiling = self._ceiling(capture.metadata.namespace)
        known = self._judged.get(uid)
        if known is not None and (known.version, known.ceiling) == (version, ceiling):
            return known
        try:
            known = _Judged(version, ceiling, *under_ceiling(capture, resolve(capture), ceiling))
        except BadCapture:
            known = _Judged(version, ceiling, None)
        if len(self._judged) > 10_000:
            self._judged.clear()
        self._judged[uid] = known
        return known


def live_list(
    client: KubeClient, calico: Callable[[], Standing] = lambda: Standing.ABSENT
) -> Callable[[str], dict[str, msgspec.Raw]]:
    """A function that lists one namespace's captures by uid, from the API server itself.

    Args:
        client: The API server.
        calico: What projectcalico.org is to us at this moment (`GroupProbe.certain`): what is
            missing counts as deleted, so a group that was installed a second ago must be seen.
    """

    def list_group(namespace: str, group: str) -> dict[str, msgspec.Raw]:
        # Without resourceVersion the answer is not from a cache of the API server.
        path = paths.packetcaptures(namespace, group)
        answer = client.request("GET", path, timeout=(5, 15))
        items = msgspec.json.decode(answer, type=_List).items
        return {msgspec.json.decode(item, type=_Head).metadata.uid: item for item in items}

    def list_namespace(namespace: str) -> dict[str, msgspec.Raw]:
        standing = calico()
        found = list_group(namespace, keys.GROUP)
        if standing is Standing.OURS:
            found |= list_group(namespace, keys.CALICO_GROUP)
        return found

    return list_namespace
