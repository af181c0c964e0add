"""Starts the controller: `python -m controller`."""

import logging
import os
import signal
import sys
import threading
import time
from typing import Final

from certs.bundle import CA_BUNDLE
from certs.loop import CertificateLoop
from certs.settings import CertificateSettings
from controller.actions import Action, namespace_of
from controller.apply import Applier, record
from controller.canary import CanaryProver
from controller.decisions import Decisions
from controller.guard import InjectionGuard, Known
from controller.health import HealthServer
from controller.loop import Loop
from controller.metrics import Metrics
from controller.polling import ReportPoller, Trust, addresses_of
from controller.reports import ReportBook
from controller.settings import BadSettings, Settings
from controller.view import Memory
from controller.watches import make_watches
from controller.world import World
from nightcap.contract.objects import ConfigMap
from nightcap.contract.switch import SWITCH, is_off
from nightcap.contract.uploads import COLLECTOR_SERVICE
from nightcap.kube.client import KubeClient
from nightcap.kube.elector import Elector
from nightcap.kube.errors import ClusterUnavailable
from nightcap.kube.events import EventRecorder
from nightcap.kube.logs import setup_logging
from nightcap.kube.rounds import Rounds

log = logging.getLogger(__name__)

LEASE: Final = "nightcap-controller"
_SAY_WAITING_SECONDS: Final = 10.0
_MISFITS_SECONDS: Final = 5.0


class Controller:
    """All parts of the controller, wired."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self.metrics = Metrics()
        memory = Memory()
        book = ReportBook()
        self.elector = Elector(
            client,
            settings.namespace,
            LEASE,
            # A restarted container keeps its pod's name, and is somebody else.
            f"{settings.hostname}_{os.urandom(4).hex()}",
            on_change=self._leadership_changed,
        )
        # The world tells the loop and the loop looks at the world: one of them comes first.
        self.loop = Loop(
            lambda namespace, now: self.decisions.decide(namespace, now),
            self._submit,
            self.metrics,
            tidy=lambda: self.world.tidy(),
            leading=self.elector.leading,
        )
        self.world = World(book, memory, self.loop.mark)
        self.decisions = Decisions(self.world)
        recorder = EventRecorder(client, "controller")
        self.applier = Applier(
            client,
            recorder,
            EventRecorder(client, "controller"),
            memory,
            self.metrics,
            self._look_again,
            may_write=lambda: self.elector.is_leader,
        )
        self._recorder = recorder
        self.watches = make_watches(client, settings, self.world)
        self.misfits = Rounds("misfits", self._tell_misfits, _MISFITS_SECONDS)
        self.poller = ReportPoller(
            book=book,
            trust=Trust(
                ca_pem=self._roots,
                server_name=f"{COLLECTOR_SERVICE}.{settings.namespace}.svc",
                token_file=settings.token_file,
            ),
            endpoints=lambda: addresses_of(self.watches.slices.items()),
            on_reports=self.world.on_reports,
            on_retrieval=self.world.on_retrieval,
            on_failure=self.metrics.report_polls_failed.inc,
        )

        def switch() -> ConfigMap | None:
            return self.watches.switch.get(settings.namespace, SWITCH)

        self.guard = InjectionGuard(
            client,
            settings.namespace,
            Known(
                pods=self.watches.pods.items,
                namespaces=self.watches.namespaces.items,
                switch=switch,
            ),
            recorder,
            may_write=lambda: self.elector.is_leader,
            patience=settings.patience,
        )
        self.canary = CanaryProver(
            client,
            settings.namespace,
            self.watches.namespaces.items,
            lambda: is_off(switch()),
            recorder,
            may_ask=lambda: self.elector.is_leader,
        )
        self._client, self._settings = client, settings
        self._namespace = settings.namespace
        self._certificates: CertificateLoop | None = None
        self.metrics.watch(self.watches.all, self.world.captures)
        self.metrics.registry.register(self.guard)
        self.metrics.registry.register(self.canary)
        self.metrics.writes_waiting.set_function(lambda: float(self.applier.waiting))
        self.metrics.leader.set_function(lambda: float(self.elector.is_leader))
        self.health = HealthServer(
            settings.metrics_port,
            self.metrics.registry,
            troubles=self.troubles,
            is_alive=lambda: self.loop.is_alive,
        )

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop."""
        self.health.start()
        for reflector in self.watches.all:
            reflector.start()
        if self._wait_synced(stopping):
            self.loop.start()
            # Replicas that wait keep up with the reports, so that status never falls back.
            self.poller.start()
            self.guard.start()
            self.canary.start()
            self.misfits.start()
            self.elector.start()
            log.info("controller runs")
            stopping.wait()
        self.stop()

    def stop(self) -> None:
        """End every part; what was begun is finished."""
        for reflector in self.watches.all:
            reflector.stop()
        self.poller.stop()
        self.guard.stop()
        self.canary.stop()
        self.misfits.stop()
        self.loop.stop()
        self.applier.stop()
        # When no write is under way any more: another begins at once.
        self.elector.stop()
        self.health.stop()
        log.info("controller stopped")

    def _submit(self, action: Action) -> float | None:
        again_at = self.applier.submit(action)
        if again_at is not None:
            self.world.again(action, again_at)
        return again_at

    def _look_again(self, action: Action, seconds: float) -> None:
        self.world.again(action, time.time() + seconds)
        self.loop.mark_later(namespace_of(action), seconds)

    def _leadership_changed(self, leads: bool) -> None:
        if self._certificates is not None:
            self._certificates.stop()
            self._certificates = None
        if leads:
            self._certificates = CertificateLoop(
                self._client,
                CertificateSettings.standard(
                    self._namespace, fills_webhooks=self._settings.fills_webhooks
                ),
            )
            self._certificates.start()
            self.world.mark_all()

    def _tell_misfits(self) -> None:
        if self.elector.is_leader:
            # The recorder says the same again after minutes only.
            for event in self.watches.not_understood():
                record(self._recorder, event)

    def troubles(self) -> tuple[str, ...]:
        """What keeps it from being ready."""
        return tuple(
            f"the watch of {reflector.name} has not synced"
            for reflector in self.watches.needed
            if not reflector.synced
        )

    def _wait_synced(self, stopping: threading.Event) -> bool:
        said_at = time.monotonic()
        while self.troubles():
            if stopping.wait(0.02):
                return False
            if time.monotonic() - said_at > _SAY_WAITING_SECONDS:
                said_at = time.monotonic()
                log.info("waiting for watches", extra={"troubles": list(self.troubles())})
        return not stopping.is_set()

    def _roots(self) -> str:
        return "".join(
            (config_map.data or {}).get(CA_BUNDLE, "") for config_map in self.watches.roots.items()
        )


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    setup_logging("controller")
    try:
        settings = Settings.from_environ(os.environ)
        client = KubeClient.from_environment()
    except (BadSettings, ClusterUnavailable) as error:
        log.error("cannot start", extra={"error": str(error)})  # noqa: TRY400 - no traceback
        return 2
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    Controller(client, settings).run(stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main())
