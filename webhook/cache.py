"""What the webhook knows of the cluster: watched, so that admitting asks nobody.

Namespaces (their label, quotas and limit ranges), captures (resolved, by namespace), the
collector's addresses and the switch of injection. Everything here may be read from any thread.
"""

import logging
import threading
import time
from typing import Final, Generic, TypeVar

import msgspec

from nightcap.contract import keys
from nightcap.contract.assignment import ResolvedCapture
from nightcap.contract.captures import BadCapture, PacketCapture, parse_capture, resolve
from nightcap.contract.ceilings import Ceiling, ceiling_of, parse_ceiling, within_ceiling
from nightcap.contract.objects import ConfigMap, LimitRange, Namespace, ResourceQuota, Service
from nightcap.contract.switch import SWITCH, is_off
from nightcap.contract.uploads import COLLECTOR_PORT, COLLECTOR_SERVICE
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.reflector import Change, HasMetadata, Reflector
from nightcap.kube.watches import watch_captures, watch_one
from webhook.facts import NamespaceFacts, NotAtOnce

log = logging.getLogger(__name__)

_LAG_SECONDS: Final = 0.05
_LAG_STEP_SECONDS: Final = 0.005

T = TypeVar("T", bound=HasMetadata)
"""What an index holds."""


class ClusterCache:
    """Reflectors of all that decisions need."""

    def __init__(
        self, client: KubeClient, namespace: str, *, lag_seconds: float = _LAG_SECONDS
    ) -> None:
        """Prepare to watch; nothing is asked before `start`.

        Args:
            client: The API server.
            namespace: Where Nightcap runs.
            lag_seconds: How far behind the API server a watch may be.
        """
        self._lag_seconds = lag_seconds
        self.running = CaptureIndex()
        self._namespaces = Reflector(
            client,
            paths.namespaces(),
            msgspec.json.Decoder(Namespace).decode,
            name="namespaces",
        )
        # Calico's are not among those that readiness waits for: pods must start whatever that
        # group is.
        self._captures, self._calico = watch_captures(client, _decode_capture, self.running.apply)
        self._collector = watch_one(
            client, paths.services(namespace), Service, COLLECTOR_SERVICE, name="collector"
        )
        self._switch = watch_one(
            client, paths.config_maps(namespace), ConfigMap, SWITCH, name="switch"
        )
        self._ceilings = Reflector(
            client, paths.capture_ceilings(namespace), parse_ceiling, name="captureceilings"
        )
        self._limit_ranges: NamespaceIndex[LimitRange] = NamespaceIndex()
        self._quotas: NamespaceIndex[ResourceQuota] = NamespaceIndex()
        self._reflectors = (
            self._namespaces,
            self._captures,
            self._collector,
            self._switch,
            self._ceilings,
            Reflector(
                client,
                paths.limit_ranges(),
                msgspec.json.Decoder(LimitRange).decode,
                name="limitranges",
                on_change=self._limit_ranges.apply,
            ),
            Reflector(
                client,
                paths.resource_quotas(),
                msgspec.json.Decoder(ResourceQuota).decode,
                name="resourcequotas",
                on_change=self._quotas.apply,
            ),
        )

    def start(self) -> None:
        for reflector in self._reflectors:
            reflector.start()
        self._calico.start()

    def stop(self) -> None:
        for reflector in self._reflectors:
            reflector.stop()
        self._calico.stop()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the lists that have not come yet; empty when all is known."""
        return tuple(reflector.name for reflector in self._reflectors if not reflector.synced)

    def namespace(self, name: str, *, wait: bool = True) -> NamespaceFacts:
        """What is known of a namespace.

        The API server asks only for pods of namespaces that it sees enabled. A watch that
        says otherwise is most likely milliseconds behind somebody's `kubectl label`, so it
        gets a moment to catch up: a pod wrongly left out stays so for its life.

        Raises:
            NotAtOnce: instead of waiting for that moment, without `wait`.
        """
        deadline = time.monotonic() + self._lag_seconds
        while True:
            found = self._namespaces.get("", name)
            if found is None:
                return NamespaceFacts(name)
            if found.metadata.label(keys.INJECT) == keys.INJECT_ENABLED:
                return NamespaceFacts(
                    name,
                    enabled=True,
                    limit_ranges=self._limit_ranges.of(name),
                    quotas=self._quotas.of(name),
                )
            if not wait:
                raise NotAtOnce(f"namespace {name} may have been enabled just now")
            if time.monotonic() >= deadline:
                return NamespaceFacts(name, enabled=False)
            time.sleep(_LAG_STEP_SECONDS)

    def captures(self, namespace: str) -> tuple[ResolvedCapture, ...]:
        """The captures of a namespace that are good and within its ceiling, running or not."""
        running = self.running.of(namespace)
        if not running:
            return ()
        return within_ceiling(running, self.ceiling(namespace), time.time())

    def ceiling(self, namespace: str) -> Ceiling | None:
        """What captures of a namespace may come to at most."""
        return ceiling_of(namespace, self._ceilings.items())

    @property
    def injecting(self) -> bool:
        """Whether new pods get their sidecar; somebody may have switched that off."""
        return not any(is_off(switch) for switch in self._switch.items())

    @property
    def collectors(self) -> tuple[tuple[str, int], ...]:
        """(address, port) of the collector's Service; empty while there is none."""
        return tuple(
            address for service in self._collector.items() for address in addresses_of(service)
        )


def addresses_of(service: Service) -> tuple[tuple[str, int], ...]:
    """Where a collector's Service answers, one address for each IP family."""
    ips = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return tuple((ip, COLLECTOR_PORT) for ip in ips if ip not in ("", "None"))


class NamespaceIndex(Generic[T]):
    """Objects by namespace; written by one thread, read by many."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, tuple[T, ...]] = {}

    def of(self, namespace: str) -> tuple[T, ...]:
        return self._by_namespace.get(namespace, ())

    def apply(self, change: Change[T]) -> None:
        """Take over a change."""
        meta = change.object.metadata
        others = tuple(o for o in self.of(meta.namespace) if o.metadata.name != meta.name)
        kept = others if change.kind == "deleted" else (*others, change.object)
        # Readers hold no lock: they see the old tuple or the new one.
        if kept:
            self._by_namespace[meta.namespace] = kept
        else:
            self._by_namespace.pop(meta.namespace, None)


class CaptureIndex:
    """Resolved captures by namespace; written by a watch of each group, read by many."""

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._by_namespace: dict[str, tuple[ResolvedCapture, ...]] = {}

    def of(self, namespace: str) -> tuple[ResolvedCapture, ...]:
        return self._by_namespace.get(namespace, ())

    def apply(self, change: Change[PacketCapture]) -> None:
        """Take over a change; a capture whose spec is bad is left out and logged."""
        meta = change.object.metadata
        resolved = None if change.kind == "deleted" else _resolved(change.object)
        with self._writing:
            others = tuple(
                other for other in self.of(meta.namespace) if other.capture.metadata.uid != meta.uid
            )
            kept = (*others, resolved) if resolved is not None else others
            # Readers hold no lock: they see the old tuple or the new one.
            if kept:
                self._by_namespace[meta.namespace] = kept
            else:
                self._by_namespace.pop(meta.namespace, None)


def _resolved(capture: PacketCapture) -> ResolvedCapture | None:
    # A capture that is being deleted still has its object; its pods have no new company.
    if capture.metadata.deletion_timestamp is not None:
        return None
    try:
        return ResolvedCapture(capture, resolve(capture))
    except BadCapture as error:
        meta = capture.metadata
        log.warning(
            "capture passed over",
            extra={"capture": f"{meta.namespace}/{meta.name}", "faults": list(error.faults)},
        )
        return None


def _decode_capture(raw: msgspec.Raw) -> PacketCapture:
    """A capture without its status, which is large and says nothing to a new pod."""
    return msgspec.structs.replace(parse_capture(raw), status=None)
