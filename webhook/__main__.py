"""`python -m webhook`: settings, wiring, and the server."""

import os
import sys
import threading
import time
from functools import lru_cache
from typing import Final

from certs.serving import ServingCertificates, serve
from nightcap.contract import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.logs import setup_logging
from nightcap.kube.metrics import start_metrics
from nightcap.pcap.bounded import check_filter
from webhook.cache import ClusterCache
from webhook.handlers import AnnotationHandler, CaptureHandler, FilterCheck, Handler, PodHandler
from webhook.injection import Template
from webhook.metrics import Metrics
from webhook.server import AdmissionApp, status_app
from webhook.settings import BadSettings, Settings
from webhook.shape import Level

SECRET: Final = "nightcap-webhook-tls"  # noqa: S105 - the name of a Secret


def main() -> int:
    """Serve until told to stop."""
    log = setup_logging("webhook")
    try:
        settings = Settings.from_environ(os.environ)
    except BadSettings as error:
        log.critical("settings refused", extra={"why": str(error)})
        return 2
    client = KubeClient.from_environment()
    cache = ClusterCache(client, settings.namespace)
    certificates = ServingCertificates(client, settings.namespace, SECRET, settings.tls_dir)
    serving = certificates
    if settings.serving_secret:
        folder = settings.tls_dir / "serving"
        serving = ServingCertificates(client, settings.namespace, settings.serving_secret, folder)
    draining = threading.Event()
    metrics = Metrics()
    metrics.watch_certificate(lambda: serving.expires_at)

    def missing() -> tuple[str, ...]:
        """What stands between this replica and being ready."""
        return (
            *cache.missing,
            *(() if serving.ready else ("a valid certificate",)),
            *(() if certificates.ready else ("the root that sidecars pin",)),
            *(("the next one: this one is going",) if draining.is_set() else ()),
        )

    def start() -> None:
        certificates.start()
        cache.start()
        start_metrics(settings.metrics_port, metrics.registry)

    def stop() -> None:
        cache.stop()
        certificates.stop()

    pods = pod_handler(settings, cache, certificates)
    app = AdmissionApp(
        {**_at_every_level(pods, wait=True), **other_handlers(cache)},
        status_app(missing).wsgi_app,
        metrics,
        at_once=_at_every_level(pods, wait=False),
    )
    serve(
        app,
        port=settings.listen_port,
        certificates=serving,
        threads=settings.threads,
        on_start=start,
        on_stop=stop,
        draining=draining,
        plain=app.plain,
    )
    return 0


def pod_handler(
    settings: Settings, cache: ClusterCache, certificates: ServingCertificates
) -> PodHandler:
    """What injects, wired to what is watched."""

    @lru_cache(maxsize=2)
    def of(generation: int, collector_ca: str) -> Template:
        return Template(
            image=settings.sidecar_image,
            release=settings.release,
            collector_name=paths.collector_name(generation),
            collector_ca=collector_ca,
            spool_size=settings.spool_size,
            spool_bytes=settings.spool_bytes,
            wait=settings.wait,
        )

    def template() -> Template:
        generation = certificates.generation
        return of(generation, certificates.ca_pem(generation))

    return PodHandler(
        cache, template, settings.sizes, own_namespace=settings.namespace, clock=time.time
    )


def _at_every_level(pods: PodHandler, *, wait: bool) -> dict[str, Handler]:
    return {f"/mutate/{level}": pods.at(level, wait=wait) for level in Level}


def other_handlers(cache: ClusterCache) -> dict[str, Handler]:
    """What compiles filters, and measures captures by their ceiling; path → handler."""
    compiling = FilterCheck(check_filter)
    return {
        "/validate": CaptureHandler(compiling, cache, time.time),
        "/warn": AnnotationHandler(compiling),
    }


if __name__ == "__main__":
    sys.exit(main())
