"""What the watches have brought, by namespace, and which namespaces have news.

Callbacks of reflectors write here; the loop reads views. Nothing here decides anything.
"""

import ipaddress
import threading
from collections.abc import Callable, Iterable

import msgspec

from controller.reports import ReportBook
from controller.view import Judged, Memory, NamespaceView, RetrievalView, judge
from nightcap.contract.captures import PacketCapture
from nightcap.contract.objects import ConfigMap, Namespace, Pod, Service
from nightcap.contract.switch import why_off
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.kube.reflector import Change


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
        self._namespaces: dict[str, Namespace] = {}
        self._captures: dict[str, dict[str, Judged]] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        self._collectors: tuple[tuple[str, int], ...] = ()
        self._retrieval = RetrievalView(asked=False)
        self._injection_off = ""

    def on_namespace(self, change: Change[Namespace]) -> None:
        name = change.object.metadata.name
        with self._lock:
            if change.kind == "deleted":
                self._namespaces.pop(name, None)
            else:
                self._namespaces[name] = change.object
        self._mark(name)

    def on_capture(self, change: Change[PacketCapture]) -> None:
        metadata = change.object.metadata
        with self._lock:
            captures = self._captures.setdefault(metadata.namespace, {})
            if change.kind == "deleted":
                captures.pop(metadata.uid, None)
                if not captures:
                    del self._captures[metadata.namespace]
            else:
                captures[metadata.uid] = judge(change.object)
        if change.kind == "deleted":
            self._forget(metadata.uid)
            self.memory.refusals.pop((metadata.namespace, metadata.name), None)
        self._mark(metadata.namespace)

    def on_pod(self, change: Change[Pod]) -> None:
        metadata = change.object.metadata
        with self._lock:
            pods = self._pods.setdefault(metadata.namespace, {})
            if change.kind == "deleted":
                pods.pop(metadata.uid, None)
                if not pods:
                    del self._pods[metadata.namespace]
            else:
                pods[metadata.uid] = change.object
        if is_news(change.old if change.kind == "modified" else None, change.object):
            self._mark(metadata.namespace)

    def on_service(self, change: Change[Service]) -> None:
        """Take the collector's addresses; every pod's orders carry them."""
        collectors = () if change.kind == "deleted" else collectors_of(change.object)
        with self._lock:
            if collectors == self._collectors:
                return
            self._collectors = collectors
        self.mark_all()

    def on_switch(self, change: Change[ConfigMap]) -> None:
        """Take whether new pods get their sidecar; every status says so when they do not."""
        injection_off = "" if change.kind == "deleted" else why_off(change.object)
        with self._lock:
            if injection_off == self._injection_off:
                return
            self._injection_off = injection_off
        self.mark_all()

    def on_retrieval(self, retrieval: RetrievalView) -> None:
        """Take how the collectors answer; every status says so when they do not."""
        with self._lock:
            if retrieval == self._retrieval:
                return
            self._retrieval = retrieval
        self.mark_all()

    def on_reports(self, namespaces: Iterable[str]) -> None:
        for namespace in namespaces:
            self._mark(namespace)

    def mark_all(self) -> None:
        """Look at everything again."""
        with self._lock:
            names = set(self._namespaces) | set(self._captures) | set(self._pods)
        for name in names:
            self._mark(name)

    def tidy(self) -> None:
        """Forget what is remembered of captures and pods that are gone."""
        with self._lock:
            captures = {uid for captures in self._captures.values() for uid in captures}
            pods = {uid for pods in self._pods.values() for uid in pods}
        self.book.tidy(captures)
        for key in tuple(self.memory.ordered_at):
            if key[0] not in captures or key[1] not in pods:
                self.memory.ordered_at.pop(key, None)

    def captures(self) -> tuple[Judged, ...]:
        with self._lock:
            return tuple(
                judged for captures in self._captures.values() for judged in captures.values()
            )

    def view(self, namespace: str) -> NamespaceView:
        """One namespace at this moment."""
        with self._lock:
            captures = tuple(self._captures.get(namespace, {}).values())
            return NamespaceView(
                namespace=self._namespaces.get(namespace),
                captures=captures,
                pods=tuple(self._pods.get(namespace, {}).values()),
                reports={judged.uid: self.book.of(judged.uid) for judged in captures},
                collectors=self._collectors,
                retrieval=self._retrieval,
                injection_off=self._injection_off,
                memory=self.memory,
            )

    def _forget(self, capture_uid: str) -> None:
        self.book.forget(capture_uid)
        self.memory.status_written_at.pop(capture_uid, None)
        for key in [key for key in tuple(self.memory.ordered_at) if key[0] == capture_uid]:
            self.memory.ordered_at.pop(key, None)


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
