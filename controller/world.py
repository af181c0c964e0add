"""What the watches have brought, by namespace, and what of it is news.

Callbacks of reflectors write here; the loop takes the news. Nothing here decides anything.
"""

import ipaddress
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from controller.actions import Action, namespace_of, uid_of
from controller.ledger import News
from controller.reports import ReportBook
from controller.view import Judged, Memory, NamespaceView, PodReport, RetrievalView, judge
from nightcap.contract.captures import PacketCapture
from nightcap.contract.ceilings import CaptureCeiling, Ceiling, ceiling_of
from nightcap.contract.objects import ConfigMap, Namespace, Pod, Service
from nightcap.contract.switch import why_off
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.kube.reflector import Change

_MOST_NEWS: Final = 1000
"""Beyond it, and the number of objects, news are not kept apart: all is looked at."""


@dataclass(slots=True)
class _Pending:
    """News that nobody has taken yet; see `controller.ledger.News`."""

    pods: set[str] = field(default_factory=set)
    captures: set[str] = field(default_factory=set)
    reports: set[tuple[str, str]] = field(default_factory=set)
    again: dict[str, float] = field(default_factory=dict)
    surroundings: bool = False
    everything: bool = True

    def is_more_than(self, objects: int) -> bool:
        return len(self.pods) + len(self.captures) + len(self.reports) > _MOST_NEWS + objects


@dataclass(slots=True)
class _Place:
    """One namespace."""

    namespace: Namespace | None = None
    captures: dict[str, Judged] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    ceiling: Ceiling | None = None
    pending: _Pending = field(default_factory=_Pending)

    @property
    def is_empty(self) -> bool:
        return self.namespace is None and not self.captures and not self.pods


class World:
    """The cluster as far as it is known; safe from any thread.

    Args:
        book: The reports.
        memory: Forgets with us what is gone.
        mark: Called with each namespace that has news.
    """

    def __init__(self, book: ReportBook, memory: Memory, mark: Callable[[str], None]) -> None:
        self.book = book
        self.memory = memory
        self._mark = mark
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._collectors: tuple[tuple[str, int], ...] = ()
        self._retrieval = RetrievalView(asked=False)
        self._injection_off = ""
        self._ceilings: dict[str, CaptureCeiling] = {}

    def on_namespace(self, change: Change[Namespace]) -> None:
        name = change.object.metadata.name
        with self._lock:
            place = self._place(name)
            place.namespace = None if change.kind == "deleted" else change.object
            place.pending.surroundings = True
        self._mark(name)

    def on_capture(self, change: Change[PacketCapture]) -> None:
        metadata = change.object.metadata
        with self._lock:
            place = self._place(metadata.namespace)
            if change.kind == "deleted":
                place.captures.pop(metadata.uid, None)
            else:
                place.captures[metadata.uid] = judge(change.object, place.ceiling)
            place.pending.captures.add(metadata.uid)
            self._bound(place)
        if change.kind == "deleted":
            self._forget(metadata.uid)
            self.memory.refusals.pop((metadata.namespace, metadata.name), None)
        self._mark(metadata.namespace)

    def on_pod(self, change: Change[Pod]) -> None:
        metadata = change.object.metadata
        news = is_news(change.old if change.kind == "modified" else None, change.object)
        with self._lock:
            place = self._place(metadata.namespace)
            if change.kind == "deleted":
                place.pods.pop(metadata.uid, None)
            else:
                place.pods[metadata.uid] = change.object
            # What is no news of its own is taken along with the next: it has the version.
            place.pending.pods.add(metadata.uid)
            self._bound(place)
        if news:
            self._mark(metadata.namespace)

    def on_service(self, change: Change[Service]) -> None:
        """Take the collector's addresses; every pod's orders carry them."""
        collectors = () if change.kind == "deleted" else collectors_of(change.object)
        with self._lock:
            if collectors == self._collectors:
                return
            self._collectors = collectors
        self.mark_all()

    def on_ceiling(self, change: Change[CaptureCeiling]) -> None:
        """Take what operators allow; captures that run are measured by it as well."""
        metadata = change.object.metadata
        names = []
        with self._lock:
            if change.kind == "deleted":
                self._ceilings.pop(metadata.uid, None)
            else:
                self._ceilings[metadata.uid] = change.object
            for name, place in self._places.items():
                ceiling = ceiling_of(name, self._ceilings.values())
                if ceiling == place.ceiling:
                    continue
                place.ceiling = ceiling
                for uid, judged in place.captures.items():
                    place.captures[uid] = judge(judged.capture, ceiling)
                place.pending.captures |= place.captures.keys()
                place.pending.surroundings = True
                names.append(name)
        for name in names:
            self._mark(name)

    def on_switch(self, change: Change[ConfigMap]) -> None:
        """Take whether new pods get their sidecar; every status says so when they do not."""
        injection_off = "" if change.kind == "deleted" else why_off(change.object)
        with self._lock:
            if injection_off == self._injection_off:
                return
            self._injection_off = injection_off
        self._mark_surroundings()

    def on_retrieval(self, retrieval: RetrievalView) -> None:
        """Take how the collectors answer; every status says so when they do not."""
        with self._lock:
            if retrieval == self._retrieval:
                return
            self._retrieval = retrieval
        self._mark_surroundings()

    def on_reports(self, reports: Iterable[PodReport]) -> None:
        names = set()
        with self._lock:
            for report in reports:
                place = self._places.get(report.namespace)
                if place is not None:
                    place.pending.reports.add((report.capture, report.pod_uid))
                    self._bound(place)
                    names.add(report.namespace)
        for name in names:
            self._mark(name)

    def again(self, action: Action, at: float) -> None:
        """Decide anew about an action's object, at a time in seconds since the epoch."""
        with self._lock:
            pending = self._place(namespace_of(action)).pending
            uid = uid_of(action)
            pending.again[uid] = min(at, pending.again.get(uid, at))

    def renew(self, namespace: str) -> None:
        """Let everything in a namespace be news, whenever it is looked at next."""
        with self._lock:
            if namespace in self._places:
                self._places[namespace].pending = _Pending()

    def mark_all(self) -> None:
        """Look at everything again."""
        with self._lock:
            for place in self._places.values():
                place.pending = _Pending()
            names = tuple(self._places)
        for name in names:
            self._mark(name)

    def _mark_surroundings(self) -> None:
        """Look again at what statuses say of more than pods and captures."""
        with self._lock:
            for place in self._places.values():
                place.pending.surroundings = True
            names = tuple(self._places)
        for name in names:
            self._mark(name)

    def tidy(self) -> None:
        """Forget what is remembered of captures and pods that are gone."""
        with self._lock:
            captures = {uid for place in self._places.values() for uid in place.captures}
            pods = {uid for place in self._places.values() for uid in place.pods}
        self.book.tidy(captures)
        for key in tuple(self.memory.ordered_at):
            if key[0] not in captures or key[1] not in pods:
                self.memory.ordered_at.pop(key, None)
        for uid in tuple(self.memory.pods_told):
            if uid not in captures:
                self.memory.pods_told.pop(uid, None)

    def captures(self) -> tuple[Judged, ...]:
        with self._lock:
            return tuple(
                judged for place in self._places.values() for judged in place.captures.values()
            )

    def view(self, namespace: str) -> NamespaceView:
        """One namespace at this moment, whole."""
        with self._lock:
            place = self._places.get(namespace) or _Place()
            return self._view(place, tuple(place.captures.values()), tuple(place.pods.values()))

    def take(self, namespace: str) -> tuple[News, NamespaceView]:
        """What is news in a namespace, and the namespace without its pods and captures."""
        with self._lock:
            place = self._places.get(namespace) or _Place()
            pending, place.pending = place.pending, _Pending(everything=False)
            if place.is_empty:
                self._places.pop(namespace, None)
            return _news_of(place, pending), self._view(place, (), ())

    def _view(
        self, place: _Place, captures: tuple[Judged, ...], pods: tuple[Pod, ...]
    ) -> NamespaceView:
        return NamespaceView(
            namespace=place.namespace,
            captures=captures,
            pods=pods,
            reports=self.book.snapshot(),
            collectors=self._collectors,
            retrieval=self._retrieval,
            ceiling=place.ceiling,
            injection_off=self._injection_off,
            memory=self.memory,
        )

    def _place(self, name: str) -> _Place:
        place = self._places.get(name)
        if place is None:
            ceiling = ceiling_of(name, self._ceilings.values())
            place = self._places[name] = _Place(ceiling=ceiling)
        return place

    def _bound(self, place: _Place) -> None:
        """Keep the news of a replica that does not lead from growing for months."""
        if place.pending.is_more_than(len(place.pods) + len(place.captures)):
            place.pending = _Pending()

    def _forget(self, capture_uid: str) -> None:
        self.book.forget(capture_uid)
        self.memory.status_written_at.pop(capture_uid, None)
        for key in [key for key in tuple(self.memory.ordered_at) if key[0] == capture_uid]:
            self.memory.ordered_at.pop(key, None)


def _news_of(place: _Place, pending: _Pending) -> News:
    if pending.everything:
        return News(pods=dict(place.pods), captures=dict(place.captures), everything=True)
    return News(
        pods={uid: place.pods.get(uid) for uid in pending.pods},
        captures={uid: place.captures.get(uid) for uid in pending.captures},
        reports=pending.reports,
        again=pending.again,
        surroundings=pending.surroundings,
    )


def is_news(old: Pod | None, new: Pod) -> bool:
    """Whether a change of a pod can change any decision.

    The kubelet writes every pod's status again and again; almost all of it is none of ours.
    """
    if old is None:
        return True
    metadata = msgspec.structs.replace(new.metadata, resource_version=old.metadata.resource_version)
    return (metadata, new.spec, new.status) != (old.metadata, old.spec, old.status)


def collectors_of(service: Service) -> tuple[tuple[str, int], ...]:
    """The addresses that sidecars ship to; a headless Service has none."""
    hosts = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return tuple((host, COLLECTOR_PORT) for host in hosts if _is_address(host))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
