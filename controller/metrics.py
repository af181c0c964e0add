"""What the controller counts, for Prometheus."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.phase import Phase
from controller.view import Judged
from nightcap.kube.reflector import Malformed

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Watched(Protocol):
    """What is told of a watch; see `nightcap.kube.reflector` and `nightcap.kube.groups`."""

    name: str

    @property
    def lists(self) -> int: ...

    @property
    def watches(self) -> int: ...

    @property
    def failures(self) -> int: ...

    @property
    def malformed(self) -> tuple[Malformed, ...]: ...

    def items(self) -> tuple[Any, ...]: ...


class Metrics:
    """The controller's own counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "nightcap_controller_reconcile_seconds",
            "Time to decide about one namespace.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.orders_seconds = Histogram(
            "nightcap_controller_orders_patch_seconds",
            "Time the API server took for one patch of orders.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.orders_written = Counter(
            "nightcap_controller_orders_written",
            "Orders annotations written or removed.",
            registry=self.registry,
        )
        # By no namespace: whoever reaches this port would learn where there are captures.
        self.dropped_packets = Counter(
            "nightcap_controller_dropped_packets",
            "Packets that kernels dropped, as statuses were written.",
            registry=self.registry,
        )
        self.actions_failed = Counter(
            "nightcap_controller_actions_failed",
            "Writes that the API server did not do.",
            ["action"],
            registry=self.registry,
        )
        self.actions_put_off = Counter(
            "nightcap_controller_actions_put_off",
            "Writes that the API server asked to bring later (429).",
            registry=self.registry,
        )
        self.reconciles_failed = Counter(
            "nightcap_controller_reconciles_failed",
            "Decisions that ended in an error of ours.",
            registry=self.registry,
        )
        self.report_polls_failed = Counter(
            "nightcap_controller_report_polls_failed",
            "Questions to collectors that were not answered.",
            registry=self.registry,
        )
        self.leader = Gauge(
            "nightcap_controller_leader",
            "1 while this replica is the one that writes.",
            registry=self.registry,
        )
        self.writes_waiting = Gauge(
            "nightcap_controller_writes_waiting",
            "Writes that are decided and wait for their turn.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "nightcap_controller_namespaces_waiting",
            "Namespaces with news that were not looked at yet.",
            registry=self.registry,
        )

    def watch(
        self, reflectors: Iterable[Watched], captures: Callable[[], tuple[Judged, ...]]
    ) -> None:
        """Show what watches and captures are like at each scrape."""
        self.registry.register(_Watches(tuple(reflectors)))
        self.registry.register(_Captures(captures))


class _Watches(Collector):
    def __init__(self, reflectors: tuple[Watched, ...]) -> None:
        self._reflectors = reflectors

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        counters = {
            "nightcap_controller_watches": ("Watches begun.", "watches"),
            "nightcap_controller_lists": ("Complete lists, one at the start.", "lists"),
            "nightcap_controller_watch_failures": ("Watches that broke.", "failures"),
        }
        for name, (text, attribute) in counters.items():
            family = CounterMetricFamily(name, text, labels=["watch"])
            for reflector in self._reflectors:
                family.add_metric([reflector.name], getattr(reflector, attribute))
            yield family
        objects = GaugeMetricFamily(
            "nightcap_controller_objects", "Objects in the local copy.", labels=["watch"]
        )
        malformed = GaugeMetricFamily(
            "nightcap_controller_objects_malformed",
            "Objects that were not understood; of each the last good state holds.",
            labels=["watch"],
        )
        for reflector in self._reflectors:
            objects.add_metric([reflector.name], len(reflector.items()))
            malformed.add_metric([reflector.name], len(reflector.malformed))
        yield objects
        yield malformed


class _Captures(Collector):
    def __init__(self, captures: Callable[[], tuple[Judged, ...]]) -> None:
        self._captures = captures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        captures = self._captures()
        phases = Tally(str((judged.capture.status or {}).get("phase")) for judged in captures)
        family = GaugeMetricFamily(
            "nightcap_controller_captures", "Captures by phase.", labels=["phase"]
        )
        for phase in Phase:
            family.add_metric([str(phase)], phases[str(phase)])
        yield family
