"""The request for each action; when, how often and in which order is `controller.apply`'s."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from controller.actions import (
    Action,
    CreateCapture,
    DeleteCapture,
    PatchOrders,
    UpdateCapture,
    UpdateStatus,
    name_of,
    namespace_of,
)
from controller.metrics import Metrics
from controller.view import Memory
from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH, KubeClient
from nightcap.kube.errors import AlreadyExists

log = logging.getLogger(__name__)


class Performer:
    """Writes what actions say; from any thread.

    Args:
        client: The API server.
        memory: Where the pace of writes is remembered.
        metrics: Counters.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, client: KubeClient, memory: Memory, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._memory = memory
        self._metrics = metrics
        self._clock = clock

    def perform(self, action: Action) -> None:
        """Write one thing.

        Raises:
            ApiError: It was not written.
        """
        match action:
            case PatchOrders():
                self._patch_orders(action)
            case UpdateStatus():
                self._update_status(action)
            case CreateCapture():
                self._create(action)
            case UpdateCapture():
                self._update(action)
            case DeleteCapture():
                self._delete(action)

    def _patch_orders(self, action: PatchOrders) -> None:
        pod = action.pod
        began_at = time.monotonic()
        # Before the write: when the watch brings it, it is known since when the pod could report.
        now = self._clock()
        fresh = [
            (uid, pod.uid) for uid in action.ids if (uid, pod.uid) not in self._memory.ordered_at
        ]
        self._memory.ordered_at.update(dict.fromkeys(fresh, now))
        try:
            self._merge(
                paths.pod_status(pod.namespace, pod.name),
                pod.uid,
                {"metadata": {"annotations": {keys.ORDERS: action.value}}},
            )
        except BaseException:
            for key in fresh:
                self._memory.ordered_at.pop(key, None)
            raise
        self._metrics.orders_seconds.observe(time.monotonic() - began_at)
        self._metrics.orders_written.inc()
        log.info("orders written", extra={**facts_of(action), "captures": len(action.ids)})

    def _update_status(self, action: UpdateStatus) -> None:
        # Before the write: one that fails is paced as well.
        self._memory.status_written_at[action.capture.uid] = self._clock()
        gone: dict[str, Any] = dict.fromkeys((action.old or {}).keys() - action.status.keys())
        self._merge(
            paths.packetcapture_status(
                action.capture.namespace, action.capture.name, action.capture.group
            ),
            action.capture.uid,
            {"status": {**action.status, **gone}},
        )
        self._metrics.dropped_packets.inc(max(0, _dropped(action.status) - _dropped(action.old)))

    def _create(self, action: CreateCapture) -> None:
        try:
            self._client.request(
                "POST",
                paths.packetcaptures(action.namespace),
                body={
                    "apiVersion": f"{keys.GROUP}/{keys.VERSION}",
                    "kind": keys.KIND,
                    "metadata": {"name": action.name, "labels": {keys.SOURCE: action.source}},
                    "spec": action.spec,
                },
            )
        except AlreadyExists:
            return  # made a moment ago; the watch will bring it
        self._memory.refusals.pop((action.namespace, action.name), None)
        log.info("annotation capture created", extra=facts_of(action))

    def _update(self, action: UpdateCapture) -> None:
        ref = action.capture
        self._merge(
            paths.packetcapture(ref.namespace, ref.name, ref.group), ref.uid, {"spec": action.spec}
        )
        self._memory.refusals.pop((ref.namespace, ref.name), None)
        log.info(
            "annotation capture changed", extra={**facts_of(action), "fields": sorted(action.spec)}
        )

    def _delete(self, action: DeleteCapture) -> None:
        ref = action.capture
        self._client.request(
            "DELETE",
            paths.packetcapture(ref.namespace, ref.name, ref.group),
            body={
                "kind": "DeleteOptions",
                "apiVersion": "v1",
                # Somebody may have changed its end meanwhile.
                "preconditions": {"uid": ref.uid, "resourceVersion": ref.resource_version},
            },
        )
        log.info("expired capture deleted", extra=facts_of(action))

    def _merge(self, path: str, uid: str, change: dict[str, Any]) -> None:
        """Merge-patch an object, on condition that it is still the one of this uid."""
        metadata = {**change.get("metadata", {}), "uid": uid}
        self._client.request(
            "PATCH", path, body={**change, "metadata": metadata}, content_type=MERGE_PATCH
        )


def _dropped(status: Mapping[str, Any] | None) -> int:
    """What a status says of kernels; nothing where it was bent by somebody."""
    count = (status or {}).get("dropped")
    return count if isinstance(count, int) else 0


def facts_of(action: Action) -> dict[str, str]:
    """An action for a log line."""
    return {
        "action": type(action).__name__,
        "namespace": namespace_of(action),
        "object": name_of(action),
    }
