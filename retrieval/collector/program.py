"""The collector, put together."""

import logging
import threading

from certs.serving import ServingCertificates, serve
from nightcap.contract.captures import parse_capture
from nightcap.contract.ceilings import CaptureCeiling, parse_ceiling
from nightcap.contract.keys import TOKEN_AUDIENCE
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.metrics import start_metrics
from nightcap.kube.reflector import Reflector
from nightcap.kube.reviews import AccessReviewer, TokenReviewer
from nightcap.kube.watches import watch_captures
from retrieval import metrics
from retrieval.collector.admission import Admission, live_pod
from retrieval.collector.app import REPORTS_PATH, CollectorApp, Parties
from retrieval.collector.captures import BothWatches, Captures, live_list
from retrieval.collector.ceilings import Ceilings
from retrieval.collector.janitor import Janitor
from retrieval.collector.reports import ReportIndex
from retrieval.collector.tokens import SidecarTokens
from retrieval.settings import THREADS, TLS_SECRET, Settings
from retrieval.store.base import StoreFailed, StoreFull
from retrieval.store.opening import open_store

SYNC_SECONDS = 30.0


_log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM."""
    client = KubeClient.from_environment()
    certificates = ServingCertificates(
        client, settings.namespace, TLS_SECRET, settings.tls_dir / "collector"
    )
    watch, calico = watch_captures(client, parse_capture)
    store = open_store(settings.store)
    ceilings = Ceilings(lambda: watched_ceilings.items())
    watched_ceilings: Reflector[CaptureCeiling] = Reflector(
        client,
        paths.capture_ceilings(settings.namespace),
        parse_ceiling,
        name="captureceilings",
        on_change=ceilings.on_change,
    )
    captures = Captures(
        BothWatches(watch, calico), live_list(client, calico.probe.certain), ceilings.of
    )
    reports = ReportIndex(store)
    janitor = Janitor(store, captures, reports, settings.store_limit_bytes)
    # Nothing of a sidecar's token is remembered there: `SidecarTokens` does, in its own way.
    pods = TokenReviewer(client, ttl_seconds=0)
    people = TokenReviewer(client)
    rights = AccessReviewer(client)
    draining = threading.Event()
    app = CollectorApp(
        store,
        SidecarTokens(lambda token: pods.review(token, (TOKEN_AUDIENCE,))),
        Admission(captures, live_pod(client), store),
        reports,
        Parties(
            person=people.review,
            may_read_reports=lambda who: rights.allows_path(who, verb="get", path=REPORTS_PATH),
            is_full=lambda: janitor.is_full,
            is_ready=lambda: (
                certificates.ready
                and watch.synced
                and watched_ceilings.synced
                and store.fault() is None
                and not draining.is_set()
            ),
        ),
    )

    def begin() -> None:
        metrics.CERTIFICATE_EXPIRY.set_function(lambda: certificates.expires_at)
        start_metrics(settings.metrics_port)
        store.start()
        _load(reports)
        for each in (watch, calico, watched_ceilings):
            each.start()
        watch.wait_synced(SYNC_SECONDS)
        janitor.start()

    def end() -> None:
        janitor.stop()
        for each in (watch, calico, watched_ceilings):
            each.stop()
        store.close()

    serve(
        app,
        port=settings.port,
        certificates=certificates,
        threads=THREADS,
        on_start=begin,
        on_stop=end,
        draining=draining,
    )


def _load(reports: ReportIndex) -> None:
    """Read the reports of earlier boots; those of a store that is away are read when it heals."""
    try:
        reports.load()
    except (StoreFailed, StoreFull) as error:
        _log.warning("reports not read yet", extra={"error": str(error)})
