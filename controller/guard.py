"""Watches over injection: counts who has a sidecar, and switches it off when it holds pods back.

Looks every few seconds at what is known already. Of the replicas the leader alone writes.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.injection import (
    HeldPod,
    Patience,
    coverages,
    held_pods,
    missed_message,
    why_to_switch_off,
)
from nightcap.contract import switch as switches
from nightcap.contract.coverage import Coverage
from nightcap.contract.objects import ConfigMap, Namespace, Pod
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH, KubeClient
from nightcap.kube.errors import AlreadyExists
from nightcap.kube.events import EventRecorder, ObjectRef
from nightcap.kube.rounds import Rounds

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
COUNT_SECONDS: Final = 30.0
_MOST_NAMESPACES_TOLD: Final = 20
"""Of one look: who counts on Events reads them, and a cluster has thousands of namespaces."""
_OFF: Final = "InjectionOff"


@dataclass(frozen=True, slots=True)
class Known:
    """What the watches know; functions, so that each look sees what is so then."""

    pods: Callable[[], Sequence[Pod]]
    namespaces: Callable[[], Sequence[Namespace]]
    switch: Callable[[], ConfigMap | None]


class InjectionGuard(Collector):
    """See the module; also shows its counts to Prometheus.

    Args:
        client: The API server.
        namespace: Of Nightcap itself.
        known: What the watches know.
        recorder: Events.
        may_write: Whether this replica leads.
        patience: How many pods may wait, and how long.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        known: Known,
        recorder: EventRecorder,
        may_write: Callable[[], bool],
        patience: Patience,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._known = known
        self._recorder = recorder
        self._may_write = may_write
        self._patience = patience
        self._clock = clock
        self._rounds = Rounds("guard", self.look_once, LOOK_SECONDS)
        self._since: dict[str, float] = {}
        self._counted_at = float("-inf")
        self._counts: Counter[Coverage] = Counter()
        self._told: dict[str, frozenset[str]] = {}

    def start(self) -> None:
        """Begin, in a thread of its own; only when the watches have synced."""
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def look_once(self) -> None:
        """Look at every pod, and do what there is to do.

        Raises:
            ApiError: The switch cannot be written.
        """
        now = self._clock()
        held = held_pods(self._known.pods(), self._since, now)
        self._since = {pod.uid: pod.since for pod in held}
        if abs(now - self._counted_at) >= COUNT_SECONDS:
            self._counted_at = now
            self._count()
        self._counts[Coverage.HELD] = len(held)
        reason = why_to_switch_off(held, self._patience, now)
        if reason and self._may_write() and not switches.is_off(self._known.switch()):
            self._switch_off(reason, held, now)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        pods = GaugeMetricFamily(
            "nightcap_pods",
            "Living pods of opted-in namespaces, by how it stands with their sidecar.",
            labels=["state"],
        )
        for coverage in Coverage:
            if coverage is not Coverage.NAMESPACE_NOT_ENABLED:
                pods.add_metric([str(coverage)], self._counts[coverage])
        yield pods
        is_on = not switches.is_off(self._known.switch())
        yield GaugeMetricFamily(
            "nightcap_injection_on", "0 while injection is switched off.", value=float(is_on)
        )

    def _count(self) -> None:
        self._counts, missed = coverages(self._known.namespaces(), self._known.pods())
        news = [
            name
            for name in sorted(missed)
            if missed[name].names - self._told.get(name, frozenset())
        ]
        self._told = {name: self._told.get(name, frozenset()) for name in missed}
        if not self._may_write():
            return
        for name in news[:_MOST_NAMESPACES_TOLD]:
            self._told[name] = missed[name].names
            log.warning(
                "pods without sidecar", extra={"namespace": name, "pods": len(missed[name].pods)}
            )
            self._warn(name, "PodsWithoutSidecar", missed_message(missed[name]))

    def _switch_off(self, reason: str, held: Sequence[HeldPod], now: float) -> None:
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        data = switches.switched_off(reason, at.replace("+00:00", "Z"))
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": switches.SWITCH, "namespace": self._namespace},
            "data": data,
        }
        try:
            self._client.request("POST", paths.config_maps(self._namespace), body=body)
        except AlreadyExists:
            path = paths.config_map(self._namespace, switches.SWITCH)
            self._client.request("PATCH", path, body={"data": data}, content_type=MERGE_PATCH)
        log.error("injection switched off", extra={"why": reason})
        message = (
            f"injection is switched off in the whole cluster: {reason}. New pods start without "
            "capture sidecar. See kubectl nightcap doctor; it frees these pods with --rescue"
        )
        self._recorder.record(
            ObjectRef("v1", "ConfigMap", switches.SWITCH, self._namespace),
            type="Warning", reason=_OFF, message=message, action="SwitchOff",
        )  # fmt: skip
        for name in sorted({pod.namespace for pod in held})[:_MOST_NAMESPACES_TOLD]:
            self._warn(name, _OFF, message)

    def _warn(self, name: str, reason: str, message: str) -> None:
        self._recorder.warn_namespace(name, reason, message, action="Inject")
